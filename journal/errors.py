"""Every error of the project, in families by what the reader does next.

::

    RecoveryError
      DivergenceError    exit 1   bisect
      UsageError         exit 2   change the call
        ValueRefused              a value that cannot be stored, with the path to it
        UnknownScheme             a URL that names no store
        EngineMismatch            the journal belongs to another engine or version
        RequestConflict           a request id used again for another command
        ClockAhead                a command's time is too far in the future
        Nondeterminism            apply did what would not be the same on a replay, under guard="strict"
        ProjectionFailed          a projection refuses the command
      UnavailableError   exit 3   try again, or open again
        StoreUnavailable          the store cannot be reached, or is missing
        JournalInUse              another writer holds the journal
        WriterFenced              a later epoch took the journal over
        WriterPoisoned            a write failed in a way that forbids another one
        OutcomeUnknown            the command may or may not be recorded
        Overloaded                the queue is full
        DeliveryFailed            the consumer of an outbox refused its messages too often
        NewerSchema               the store was written by a newer release
        EngineImportError         the engine could not be loaded
        WorkerLost                a process that was given work ended without an answer
        ProjectionBehind          a projection's tables do not hold the whole history
      CorruptionError    exit 4   restore a copy
        ChecksumMismatch          stored bytes are not those that were written
        BrokenChain               an entry does not continue the one before it
        Gap                       an entry is missing
        TornTail                  the last batch was never wholly written, nor acknowledged
        UnknownFormat             bytes of no format this release reads
        EvidenceAhead             something proves that the journal lost its end
        OrphanedTail              a journal holds commands that the one it is shipped to went on without
        Trimmed                   commands that are no longer, or not, kept here
      NothingVerified    exit 5   there was nothing to look at

The exit code falls out of the family.  ``position`` says where (a command id, or a byte of a
named file), ``expected`` and ``found`` what, ``hint`` the next thing to type.  ``retry`` is True
where a machine may send the same call again without asking.
"""

from __future__ import annotations

from collections.abc import Callable


class RecoveryError(Exception):
    """The root.  Catch a family, not this."""

    exit_code = 3
    retry = False

    def __init__(
        self,
        message: str,
        *,
        position: int | str | None = None,
        expected: object = None,
        found: object = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.expected = expected
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        text = self.message
        if self.position is not None:
            where = f"command {self.position}" if isinstance(self.position, int) else self.position
            text = f"{where}: {text}"
        if self.expected is not None or self.found is not None:
            text = f"{text} (expected {self.expected}, found {self.found})"
        return text

    def __reduce__(self) -> tuple[Callable[..., RecoveryError], tuple[object, ...]]:
        # The keyword-only fields would be lost by the default, which calls cls(*args).
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(cls: type[RecoveryError], message: str, state: dict[str, object]) -> RecoveryError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class DivergenceError(RecoveryError):
    """A replay went another way than the record.  ``evidence`` holds the finding, when there is one."""

    exit_code = 1
    evidence: object = None


class UsageError(RecoveryError):
    """The call was wrong; nothing was changed."""

    exit_code = 2


class ValueRefused(UsageError):
    """A value is not plain, or beyond a limit; the message names the path to it."""


class UnknownScheme(UsageError):
    """A URL names no store that this release has."""


class EngineMismatch(UsageError):
    """The stored history was written by another engine, or by another version of this one."""


class RequestConflict(UsageError):
    """A request id is recorded already, for a command of another type or with other data."""


class ClockAhead(UsageError):
    """A command's time lies further ahead of the writer's clock than ``clock_skew_max_ms``."""


class Nondeterminism(UsageError):
    """Under guard: ``apply`` used the clock, chance, the machine or the order of a set; the message names the line."""


class ProjectionFailed(UsageError):
    """A projection, or the database on its behalf, refuses a command: it is not recorded, and has left no trace."""


class UnavailableError(RecoveryError):
    """It could not be done now; nothing is wrong with the data."""

    exit_code = 3


class StoreUnavailable(UnavailableError):
    """The store is missing, unreachable, or not writable."""


class JournalInUse(UnavailableError):
    """Another process writes this journal; the message names it."""


class WriterFenced(UnavailableError):
    """A later epoch took the journal over; this writer may not write again."""


class WriterPoisoned(UnavailableError):
    """A write failed such that what is on disk is unknown; close, and open again."""


class OutcomeUnknown(UnavailableError):
    """The command may or may not be recorded: send the *same* command, with the same request id."""

    retry = True


class Overloaded(UnavailableError):
    """The queue is full; nothing was accepted."""

    retry = True


class DeliveryFailed(UnavailableError):
    """The consumer of an outbox refused its messages too often; they stay where they are, and so does the cursor."""


class NewerSchema(UnavailableError):
    """The store was laid out by a newer release than this one."""


class EngineImportError(UnavailableError):
    """The engine's module or attribute could not be loaded."""


class WorkerLost(UnavailableError):
    """A process that was given work ended without an answer; what it was to check is not checked."""


class ProjectionBehind(UnavailableError):
    """A projection's tables do not hold the whole history; ``recovery backfill`` fills them."""


class CorruptionError(RecoveryError):
    """What is stored is not what was written."""

    exit_code = 4


class ChecksumMismatch(CorruptionError):
    """Stored bytes do not match their checksum."""


class BrokenChain(CorruptionError):
    """An entry's chain, digest or arithmetic does not continue the entry before it."""


class Gap(CorruptionError):
    """An entry that must be there is missing."""


class TornTail(CorruptionError):
    """The last batch of a ``wal:`` journal was being written when power went: it was never acknowledged, and can be cut."""


class UnknownFormat(CorruptionError):
    """Bytes that no format of this release explains."""


class EvidenceAhead(CorruptionError):
    """Something durable lies beyond the journal's end, so the journal lost its end."""


class OrphanedTail(CorruptionError):
    """A journal and the one it is shipped to went different ways; the message lists the commands that are here alone."""


class Trimmed(CorruptionError):
    """What is asked for lies before the first command that is kept."""


class NothingVerified(RecoveryError):
    """There was nothing to verify."""

    exit_code = 5
