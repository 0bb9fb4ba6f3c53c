"""One step of an engine: apply a command to it, undoably, and take what the record needs.

``TableStepper`` drives a ``TableEngine``: digests at every command, changes as rows, undo from the notes of what was touched.
``CaptureStepper`` drives any other engine: a digest every so many commands, from its captured value; undo by a fresh
instance, the last capture, and the commands since.  The runtime and the replayer both drive their engine through these, so that
live and replay are the same code.
"""

from __future__ import annotations

import decimal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

import xxhash

from journal import digest, framing, values
from journal.errors import DivergenceError, EngineImportError, UsageError, ValueRefused
from journal.framing import NO_EVENTS, Change
from journal.records import TEXT_BYTES_MAX, Command, Entry, Reject, stored_command
from recovery.engine import Context, Engine
from recovery.state import Finished, State, Undo
from recovery.table_engine import TableEngine, run_rebuild, schema_fingerprint, state_of

Factory = Callable[[], Any]
Apply = Callable[[Any, Context, Command], Any]

PRECISION: Final = 28


def pinned_decimals() -> decimal.Context:
    """The decimal context every command runs under; recorded in the epoch."""
    return decimal.Context(
        prec=PRECISION, rounding=decimal.ROUND_HALF_EVEN, Emin=-999999, Emax=999999, capitals=1, clamp=0
    )


_PINNED: Final = pinned_decimals()


def _applied(engine: Any, context: Context, command: Command) -> Any:
    """What an engine answers, under a decimal context that neither the host nor the command before it has touched."""
    with decimal.localcontext(_PINNED):
        return engine.apply(context, command)


class Asked(NamedTuple):
    """A command as it is recorded, the first fields of a Transition and, after the id, of an Entry.

    What is applied is always decoded from this, live as on replay, so that both see the same.
    """

    request_key: bytes
    type: str
    entity_id: str | None
    received_at_ms: int
    data_bytes: bytes

    def command(self) -> Command:
        """A copy of the command, for ``apply`` alone."""
        return stored_command(
            self.type, values.decode(self.data_bytes), self.request_key, self.received_at_ms, self.entity_id
        )


class Step(NamedTuple):
    """What one command did."""

    rejected: bool
    result_bytes: bytes
    events_bytes: bytes
    changes_bytes: bytes | None
    post_digest_bytes: bytes | None
    duration_ns: int


class Stepper(Protocol):
    """An engine and the way back from its last steps."""

    engine: Any
    name: str
    state_version: int
    logic_version: int
    replays_from: int
    seed: int
    kind: str
    """"tables" or "value": the kind of image that holds this engine's state."""
    fingerprint: bytes
    apply: Apply
    """How a command is applied; a guard puts itself in between (recovery/determinism.py)."""

    @property
    def digest_bytes(self) -> bytes | None:
        """The digest of the state now; None where none was taken here."""

    def step(self, asked: Asked, command_id: int, logic_version: int) -> Step:
        """Apply a command.  Where it raises, the state is as it was."""

    def undo_to(self, command_id: int) -> None:
        """Take back every step after this command; it must not be settled past."""

    def settle(self, command_id: int) -> None:
        """Steps up to this command are durable and will not be undone."""

    def reset(self) -> None:
        """Become the state at command 0."""


class TableStepper:
    """A ``Stepper`` over a ``TableEngine``."""

    kind = "tables"

    def __init__(self, engine: TableEngine, seed: int) -> None:
        self.engine = engine
        self.apply: Apply = _applied
        self.state: State = state_of(engine)
        self.seed = seed
        self.name, self.state_version, self.logic_version, self.replays_from = engine_versions(engine)
        self.fingerprint = schema_fingerprint(type(engine))
        self._undo: deque[tuple[int, Undo]] = deque()

    @property
    def digest_bytes(self) -> bytes:
        """The digest of the state now."""
        return self.state.digest_bytes

    def step(self, asked: Asked, command_id: int, logic_version: int) -> Step:
        """Apply a command; a Reject or any other exception leaves every row and index as it was."""
        context = Context(command_id, asked.received_at_ms, logic_version, self.seed)
        command = asked.command()
        state, engine = self.state, self.engine
        rejected, events_bytes = False, NO_EVENTS
        began_ns = time.perf_counter_ns()
        state.begin()
        try:
            try:
                result_bytes = values.encode(self.apply(engine, context, command))
                if context.events:
                    events_bytes = framing.pack_events(context.events)
                finished = state.finish()
            except Reject as reject:
                rejected, result_bytes = True, rejection_bytes(reject)
                self._roll_back()
                finished = state.finish()
        except BaseException:
            self._roll_back()
            raise
        duration_ns = time.perf_counter_ns() - began_ns
        self._undo.append((command_id, finished.undo))
        return Step(rejected, result_bytes, events_bytes, finished.changes_bytes, finished.digest_bytes, duration_ns)

    def _roll_back(self) -> None:
        self.state.rollback()
        self._derive_again()

    def _derive_again(self) -> None:
        try:
            run_rebuild(self.engine)
        except Exception as error:
            raise _not_undone(self.name, "rebuild() failed after rows were put back", error) from error

    def redo(self, entry: Entry) -> Finished:
        """Write an entry's recorded rows instead of applying its command."""
        finished = self.state.redo(entry.changes or ())
        self._undo.append((entry.command_id, finished.undo))
        run_rebuild(self.engine)
        return finished

    def write(self, changes: Iterable[Change]) -> None:
        """Write rows, whatever commands they come from, with no way back."""
        self._undo.clear()
        self.state.redo(changes)
        run_rebuild(self.engine)

    def undo_to(self, command_id: int) -> None:
        """Put rows back, newest step first."""
        while self._undo and self._undo[-1][0] > command_id:
            self.state.undo(self._undo.pop()[1])
        self._derive_again()

    def settle(self, command_id: int) -> None:
        """Forget how to undo what is durable."""
        undo = self._undo
        while undo and undo[0][0] <= command_id:
            undo.popleft()

    def reset(self) -> None:
        """Empty every table."""
        self.state.clear()
        self._undo.clear()
        run_rebuild(self.engine)

    def load(self, blocks: Iterator[tuple[str, Any, Any]], state_digest: digest.StateDigest) -> None:
        """Become the state of an image."""
        self._undo.clear()
        self.state.load(blocks, state_digest)
        run_rebuild(self.engine)


class CaptureStepper:
    """A ``Stepper`` over any other engine.  ``digest_every`` is the journal's: captures are taken at its multiples."""

    kind = "value"

    def __init__(self, factory: Factory, seed: int, digest_every: int) -> None:
        self._factory = factory
        self.engine = factory()
        self.apply: Apply = _applied
        self.seed = seed
        self.name, self.state_version, self.logic_version, self.replays_from = engine_versions(self.engine)
        self.fingerprint = xxhash.xxh3_128_digest(f"{self.name} value {self.state_version}".encode())
        self._digest_every = digest_every
        self._digest_bytes: bytes | None = None
        # Captures from which the engine can be made again, oldest first, and every command after the oldest.
        self._bases: deque[tuple[int, bytes]] = deque([(0, self.capture_bytes())])
        self._since: deque[tuple[Asked, int, int]] = deque()

    @property
    def digest_bytes(self) -> bytes | None:
        """The digest of the state now, where a capture was just taken."""
        return self._digest_bytes

    def step(self, asked: Asked, command_id: int, logic_version: int) -> Step:
        """Apply a command.  A Reject is believed to have changed nothing; after anything else, the engine is made again."""
        context = Context(command_id, asked.received_at_ms, logic_version, self.seed)
        command = asked.command()
        rejected, events_bytes = False, NO_EVENTS
        began_ns = time.perf_counter_ns()
        try:
            try:
                result_bytes = values.encode(self.apply(self.engine, context, command))
                if context.events:
                    events_bytes = framing.pack_events(context.events)
            except Reject as reject:
                rejected, result_bytes = True, rejection_bytes(reject)
            post = None
            if command_id % self._digest_every == 0:
                captured = self.capture_bytes()
                post = self.digest_of(captured)
        except BaseException:
            self._remake(command_id - 1)
            raise
        duration_ns = time.perf_counter_ns() - began_ns
        self._since.append((asked, command_id, logic_version))
        if post is not None:
            self._bases.append((command_id, captured))
        self._digest_bytes = post
        return Step(rejected, result_bytes, events_bytes, None, post, duration_ns)

    def copy(self, factory: Factory) -> CaptureStepper:
        """A stepper over a fresh engine that was restored from what this one captures."""
        fresh = CaptureStepper(factory, self.seed, self._digest_every)
        fresh.load_value(0, self.capture_bytes())
        return fresh

    def capture_bytes(self) -> bytes:
        """The captured value's bytes; ValueRefused names the path of what is not plain."""
        try:
            return values.encode(self.engine.capture(), bytes_max=values.CAPTURE_BYTES_MAX)
        except ValueRefused as error:
            raise ValueRefused(f"{self.name}.capture() gave what cannot be stored: {error.message}") from error

    def digest_of(self, captured: bytes) -> bytes:
        """The packed digest of the state now, whose captured bytes are given."""
        own = getattr(self.engine, "digest", None)
        if own is None:
            return digest.StateDigest(digest.CAPTURE, {}, xxhash.xxh3_128_digest(captured)).pack()
        root = own()
        if type(root) is not bytes or not 0 < len(root) <= digest.ROOT_BYTES_MAX:
            raise UsageError(f"{self.name}.digest() gave {root!r}, not 1 to {digest.ROOT_BYTES_MAX} bytes")
        return digest.StateDigest(digest.OWN, {}, root).pack()

    def undo_to(self, command_id: int) -> None:
        """Make the engine again, as of this command."""
        while self._since and self._since[-1][1] > command_id:
            self._since.pop()
        while self._bases[-1][0] > command_id:
            self._bases.pop()
        self._remake(command_id)

    def _remake(self, command_id: int) -> None:
        at, captured = self._bases[-1]
        try:
            self.engine = self._factory()
            self.engine.restore(values.decode(captured))
            for asked, past_id, logic_version in self._since:
                if at < past_id <= command_id:
                    context = Context(past_id, asked.received_at_ms, logic_version, self.seed)
                    with suppress(Reject):
                        _applied(self.engine, context, asked.command())
            self._digest_bytes = self.digest_of(captured) if at == command_id and at else None
        except Exception as error:
            raise _not_undone(self.name, f"it could not be made again as of command {command_id}", error) from error

    def settle(self, command_id: int) -> None:
        """Forget captures and commands that no undo can need."""
        while len(self._bases) > 1 and self._bases[1][0] <= command_id:
            self._bases.popleft()
        at = self._bases[0][0]
        while self._since and self._since[0][1] <= at:
            self._since.popleft()

    def reset(self) -> None:
        """Begin again with a fresh instance."""
        self.engine = self._factory()
        self._bases = deque([(0, self.capture_bytes())])
        self._since.clear()
        self._digest_bytes = None

    def load_value(self, command_id: int, captured: bytes) -> None:
        """Become the state of an image."""
        self.engine = self._factory()
        self.engine.restore(values.decode(captured))
        self._bases = deque([(command_id, captured)])
        self._since.clear()
        self._digest_bytes = self.digest_of(captured)


def _not_undone(name: str, what: str, error: Exception) -> DivergenceError:
    # Half undone is no state of any command: who drives the engine must stop.
    return DivergenceError(
        f"{name}: {what}: {type(error).__name__}: {error}",
        hint="open again: the state is rebuilt from the journal; what undoing runs must not depend on what ran before",
    )


def rejection_bytes(reject: Reject) -> bytes:
    """A rejection's bytes: the tuple of its code and message."""
    code, message = reject.code, reject.message
    if type(code) is not str or type(message) is not str or not 0 < len(code) <= TEXT_BYTES_MAX:
        raise UsageError(
            f"Reject takes a code of 1 to {TEXT_BYTES_MAX} characters and a message, both text, not {reject.args!r}"
        )
    return values.encode((code, message))


def make_stepper(factory: Factory, seed: int, digest_every: int) -> Stepper:
    """A stepper over a fresh engine.  ``digest_every`` is 0 for engines with tables, as a journal's identity has it."""
    engine = factory()
    if isinstance(engine, TableEngine):
        if digest_every:
            raise UsageError(f"{engine.name} has tables, but the journal was made by an engine without")
        return TableStepper(engine, seed)
    if not digest_every:
        raise UsageError(f"{engine.name} has no tables, but the journal was made by an engine with tables")
    return CaptureStepper(factory, seed, digest_every)


def check_engine_shape(engine: Any) -> None:
    """Raise EngineImportError unless the object has what an engine must have."""
    wanted = ("apply",) if isinstance(engine, TableEngine) else ("apply", "capture", "restore")
    missing = [name for name in wanted if not callable(getattr(engine, name, None))]
    name = getattr(engine, "name", None)
    if type(name) is not str or not name:
        missing.insert(0, "name (a str)")
    if missing or isinstance(engine, type):
        kind = engine.__qualname__ if isinstance(engine, type) else type(engine).__qualname__
        raise EngineImportError(
            f"{kind} is not an engine: it has no {', '.join(missing)}"
            if missing
            else f"{kind} is a class, not an engine",
            hint="an engine has name, apply, capture and restore, or is a recovery.TableEngine with a name",
        )


class Versions(NamedTuple):
    """What an engine says it is."""

    name: str
    state_version: int
    logic_version: int
    replays_from: int


def engine_versions(engine: TableEngine | Engine) -> Versions:
    """What an engine says it is, with what it leaves out."""
    state_version = getattr(engine, "state_version", 1)
    logic_version = getattr(engine, "logic_version", 1)
    return Versions(engine.name, state_version, logic_version, getattr(engine, "replays_from", logic_version))
