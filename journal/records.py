"""The words of the record.  All are immutable; what is stored is bytes, decoded when asked for.

An ``Entry`` is one row of a journal, field for field.  Its parts are covered by ``part_hashes``::

    command hash   H(request id, type, data, received_at_ms as i64, entity id or empty)      16 bytes
    result hash    H(0x00 + response bytes) or H(0x01 + rejection bytes)                     16 bytes
    events hash    H(events bytes, before any reduction)                                     16 bytes
    changes hash   H(changes bytes), or of nothing where changes are not recorded            16 bytes

(``H``: journal/digest.py) and all of its fields by ``checksum``, xxh3_128 over ``_FIXED`` (the numbers,
big-endian, and the lengths of what follows) and the byte fields in the order of ``Entry.blobs``.

An ``Epoch`` and a ``JournalIdentity`` are stored as ``values.encode`` of a dict of their fields, and xxh3_128 of that.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import xxhash

from journal import digest, framing, values
from journal.errors import ChecksumMismatch, UsageError
from journal.framing import Change, Event

__all__ = [
    "Change",
    "Command",
    "Entry",
    "Epoch",
    "Event",
    "Head",
    "JournalIdentity",
    "Receipt",
    "Reject",
    "Rejection",
    "Summary",
    "Transition",
    "request_key",
    "sealed",
    "unsealed",
]

REQUEST_NAMESPACE: Final = uuid.UUID("6f9619ff-8b86-5d01-b42d-00cf4fc964ff")
TEXT_BYTES_MAX: Final = 255
ENTRY_BYTES_MAX: Final = 64 * 2**20
MS_MAX: Final = 2**53

_FIXED: Final = struct.Struct(">qqqqqBBIIIIIIIIIII")


class Reject(Exception):
    """Raised inside ``apply``: the command is refused by the engine's rules, and that is recorded."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class Rejection(NamedTuple):
    """A recorded ``Reject``."""

    code: str
    message: str


class Command:
    """What is asked of an engine.

    ``type`` names it, at most 255 bytes, not beginning with ``$``.  ``data`` is a plain value (journal/values.py).
    ``request_id`` makes a retry the same command: a UUID, or text of at most 255 bytes, which is mapped to a UUIDv5.
    ``received_at_ms`` is milliseconds since 1970 UTC; None lets the runtime stamp it.  ``entity_id`` is for searching.
    """

    __slots__ = ("data", "entity_id", "received_at_ms", "request_key", "type")

    type: str
    data: Any
    request_key: bytes
    """The request id's 16 bytes."""
    received_at_ms: int | None
    entity_id: str | None

    def __init__(
        self,
        type: str,
        data: object,
        *,
        request_id: uuid.UUID | str | None = None,
        received_at_ms: int | None = None,
        entity_id: str | None = None,
    ) -> None:
        check_text(type, "a command's type")
        if not type or type[0] == "$":
            raise UsageError(f"{type!r} cannot be a command's type: it is empty or begins with $, which is reserved")
        if entity_id is not None:
            check_text(entity_id, "a command's entity_id")
        if received_at_ms is not None and (received_at_ms.__class__ is not int or not 0 <= received_at_ms <= MS_MAX):
            raise UsageError(f"received_at_ms is {received_at_ms!r}, not whole milliseconds since 1970")
        key = (uuid.uuid4() if request_id is None else request_key(request_id)).bytes
        _fill(self, type, data, key, received_at_ms, entity_id)

    @property
    def request_id(self) -> uuid.UUID:
        """What makes a retry the same command."""
        return uuid.UUID(bytes=self.request_key)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Command does not change; make another to have a different {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Command does not change; it keeps its {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return stored_command, (self.type, self.data, self.request_key, self.received_at_ms, self.entity_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Command):
            return NotImplemented
        return (self.request_key, self.type, self.received_at_ms, self.entity_id, values.encode(self.data)) == (
            other.request_key,
            other.type,
            other.received_at_ms,
            other.entity_id,
            values.encode(other.data),
        )

    def __hash__(self) -> int:
        return hash(self.request_key)

    def __repr__(self) -> str:
        return f"Command({self.type!r}, {self.data!r}, request_id={str(self.request_id)!r})"


def _fill(
    command: Command, type: str, data: object, key: bytes, received_at_ms: int | None, entity_id: str | None
) -> None:
    # By the slots themselves: a Command refuses assignment, and this runs for every command replayed.
    _set_type(command, type)
    _set_data(command, data)
    _set_key(command, key)
    _set_received(command, received_at_ms)
    _set_entity(command, entity_id)


_set_type, _set_data, _set_key, _set_received, _set_entity = (
    Command.__dict__[name].__set__ for name in ("type", "data", "request_key", "received_at_ms", "entity_id")
)


def stored_command(
    type: str, data: object, request_key: bytes, received_at_ms: int | None, entity_id: str | None
) -> Command:
    """A command whose parts have been checked before: read from a record, or unpickled."""
    command = Command.__new__(Command)
    _fill(command, type, data, request_key, received_at_ms, entity_id)
    return command


def request_key(request_id: uuid.UUID | str) -> uuid.UUID:
    """The UUID of a request id; text is mapped by UUIDv5 in ``REQUEST_NAMESPACE``."""
    if request_id.__class__ is uuid.UUID:
        return request_id
    if not isinstance(request_id, str) or not request_id:
        raise UsageError(f"a request id is a UUID or text, not {request_id!r}")
    check_text(request_id, "a request id")
    return uuid.uuid5(REQUEST_NAMESPACE, request_id)


def check_text(text: object, what: str) -> None:
    """Refuse what no store can index: not a str, too long, with NUL or a lone surrogate."""
    if text.__class__ is not str:
        raise UsageError(f"{what} is {text!r}, not a str")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{what} holds a lone surrogate: {text!r}") from None
    if size > TEXT_BYTES_MAX or "\0" in text:
        raise UsageError(f"{what} is longer than {TEXT_BYTES_MAX} bytes or holds NUL: {text!r}")


class Transition(NamedTuple):
    """One step of an engine, before it is placed in a journal.  ``rejected`` says how to read ``result_bytes``."""

    request_key: bytes
    type: str
    entity_id: str | None
    received_at_ms: int
    data_bytes: bytes
    rejected: bool
    result_bytes: bytes
    events_bytes: bytes
    changes_bytes: bytes | None
    post_digest_bytes: bytes | None
    duration_ns: int


class Head(NamedTuple):
    """Where a journal ends.  Command 0 is before the first; ``post_digest_bytes`` is None where none was taken."""

    command_id: int
    post_digest_bytes: bytes | None
    chain: bytes
    received_at_ms: int

    @property
    def post_digest(self) -> digest.StateDigest | None:
        """The state's digest there."""
        return None if self.post_digest_bytes is None else digest.StateDigest.unpack(self.post_digest_bytes)


class Entry(NamedTuple):
    """One command as it stands in a journal: the transition, flat, with what places and protects it."""

    command_id: int
    request_key: bytes
    type: str
    entity_id: str | None
    received_at_ms: int
    data_bytes: bytes
    rejected: bool
    result_bytes: bytes
    events_bytes: bytes
    changes_bytes: bytes | None
    pre_digest_bytes: bytes | None
    post_digest_bytes: bytes | None
    chain: bytes
    part_hashes: bytes
    events_reduced: bool
    epoch: int
    duration_ns: int
    recorded_at_ms: int
    checksum: bytes

    @property
    def request_id(self) -> uuid.UUID:
        """The command's request id."""
        return uuid.UUID(bytes=self.request_key)

    @property
    def size(self) -> int:
        """The bytes of its payloads: what counts where many entries are taken together."""
        return len(self.data_bytes) + len(self.result_bytes) + len(self.events_bytes) + len(self.changes_bytes or b"")

    @property
    def data(self) -> Any:
        """The command's data."""
        return values.decode(self.data_bytes)

    @property
    def command(self) -> Command:
        """The command, as given to ``apply``."""
        return stored_command(self.type, self.data, self.request_key, self.received_at_ms, self.entity_id)

    @property
    def response(self) -> Any:
        """What the engine answered; None where it rejected."""
        return None if self.rejected else values.decode(self.result_bytes)

    @property
    def rejection(self) -> Rejection | None:
        """Why the engine rejected the command, where it did."""
        return Rejection(*values.decode(self.result_bytes)) if self.rejected else None

    @property
    def events(self) -> list[Event]:
        """What happened, in the order emitted; where ``events_reduced``, what is kept of it (journal/event_detail.py)."""
        return framing.unpack_events(self.events_bytes)

    def emitted(self, events_bytes: bytes) -> bool:
        """Whether these are the events of this command: by their hash where the stored ones are reduced."""
        if not self.events_reduced:
            return events_bytes == self.events_bytes
        return digest.hash_parts(events_bytes) == self.part_hashes[32:48]

    @property
    def changes(self) -> list[Change] | None:
        """The rows this command changed, by (table, key); None where changes are not recorded."""
        return None if self.changes_bytes is None else framing.unpack_changes(self.changes_bytes)

    @property
    def pre_digest(self) -> digest.StateDigest | None:
        """The state's digest before the command, where one was taken."""
        return None if self.pre_digest_bytes is None else digest.StateDigest.unpack(self.pre_digest_bytes)

    @property
    def post_digest(self) -> digest.StateDigest | None:
        """The state's digest after the command, where one was taken."""
        return None if self.post_digest_bytes is None else digest.StateDigest.unpack(self.post_digest_bytes)

    @property
    def head(self) -> Head:
        """The journal's head while this was its last entry."""
        return Head(self.command_id, self.post_digest_bytes, self.chain, self.received_at_ms)

    def computed_part_hashes(self) -> bytes:
        """``part_hashes`` as the fields give them."""
        return part_hashes(
            self.request_key,
            self.type,
            self.entity_id,
            self.received_at_ms,
            self.data_bytes,
            self.rejected,
            self.result_bytes,
            self.events_bytes,
            self.changes_bytes,
        )

    def computed_checksum(self) -> bytes:
        """``checksum`` as the fields give it."""
        return checksum(*self[:-1])

    def verify(self) -> None:
        """Raise ChecksumMismatch unless every field is as it was written."""
        found = self.computed_checksum()
        if found != self.checksum:
            raise ChecksumMismatch(
                "the stored entry does not match its checksum",
                position=self.command_id,
                expected=self.checksum.hex(),
                found=found.hex(),
                hint="run: recovery check",
            )


unchecked_entry: Final[Callable[[tuple[Any, ...]], Entry]] = partial(tuple.__new__, Entry)
"""``Entry._make`` without its count of the fields: for a store that reads many, and has counted."""


def part_hashes(
    request_key: bytes,
    type: str,
    entity_id: str | None,
    received_at_ms: int,
    data_bytes: bytes,
    rejected: bool,
    result_bytes: bytes,
    events_bytes: bytes,
    changes_bytes: bytes | None,
) -> bytes:
    """The four hashes described at the head of this file, 64 bytes."""
    hash_parts = digest.hash_parts
    return b"".join(
        [
            hash_parts(
                request_key,
                type.encode(),
                data_bytes,
                received_at_ms.to_bytes(8, "big"),
                b"" if entity_id is None else entity_id.encode(),
            ),
            hash_parts((b"\x01" if rejected else b"\x00") + result_bytes),
            hash_parts(events_bytes),
            hash_parts(changes_bytes or b""),
        ]
    )


def next_chain(chain: bytes, part_hashes: bytes, pre_digest: bytes | None, post_digest: bytes | None) -> bytes:
    """The chain after an entry, given the chain before it (journal/digest.py)."""
    return digest.hash_parts(
        chain,
        part_hashes[:16],
        part_hashes[16:32],
        part_hashes[32:48],
        digest.root_of(pre_digest),
        digest.root_of(post_digest),
    )


def checksum(
    command_id: int,
    request_key: bytes,
    type: str,
    entity_id: str | None,
    received_at_ms: int,
    data_bytes: bytes,
    rejected: bool,
    result_bytes: bytes,
    events_bytes: bytes,
    changes_bytes: bytes | None,
    pre_digest_bytes: bytes | None,
    post_digest_bytes: bytes | None,
    chain: bytes,
    part_hashes: bytes,
    events_reduced: bool,
    epoch: int,
    duration_ns: int,
    recorded_at_ms: int,
) -> bytes:
    """The checksum over an entry's other fields, in their order, 16 bytes."""
    name = type.encode()
    entity = b"" if entity_id is None else entity_id.encode()
    changes, pre, post = changes_bytes or b"", pre_digest_bytes or b"", post_digest_bytes or b""
    absent = (entity_id is None) | (changes_bytes is None) << 1 | (pre_digest_bytes is None) << 2
    absent |= (post_digest_bytes is None) << 3
    fixed = _FIXED.pack(
        command_id,
        received_at_ms,
        epoch,
        duration_ns,
        recorded_at_ms,
        bool(rejected) | bool(events_reduced) << 1,
        absent,
        len(request_key),
        len(name),
        len(entity),
        len(data_bytes),
        len(result_bytes),
        len(events_bytes),
        len(changes),
        len(pre),
        len(post),
        len(chain),
        len(part_hashes),
    )
    return xxhash.xxh3_128_digest(
        b"".join(
            [
                fixed,
                request_key,
                name,
                entity,
                data_bytes,
                result_bytes,
                events_bytes,
                changes,
                pre,
                post,
                chain,
                part_hashes,
            ]
        )
    )


class Receipt(NamedTuple):
    """What the caller of a command gets, decoded from the record.  ``duplicate``: it was recorded before this call.

    ``events_reduced``: the command emitted more than ``events`` tells (journal/event_detail.py).
    """

    command_id: int
    response: Any
    events: list[Event]
    rejection: Rejection | None
    duplicate: bool
    events_reduced: bool = False

    @classmethod
    def of(cls, entry: Entry, *, duplicate: bool) -> Receipt:
        """The receipt of a recorded command."""
        return cls(entry.command_id, entry.response, entry.events, entry.rejection, duplicate, entry.events_reduced)

    def raise_for_rejection(self) -> Receipt:
        """This receipt, or Reject where the engine rejected the command."""
        if self.rejection is not None:
            raise Reject(*self.rejection)
        return self


class Summary(NamedTuple):
    """One line of a journal's recent past.  Where ``events_reduced``, ``events`` counts what is kept of them."""

    command_id: int
    request_id: uuid.UUID
    type: str
    entity_id: str | None
    received_at_ms: int
    rejected: bool
    events: int
    event_types: tuple[str, ...]
    events_reduced: bool = False


class Epoch(NamedTuple):
    """One opening of a journal for write: who wrote the entries that carry its number.

    ``head`` is the last command there was then; ``accepted_loss`` says what was known to be lost and was let go.
    """

    number: int
    engine: str
    state_version: int
    logic_version: int
    schema: bytes
    code_revision: str
    python: str
    library: str
    host: str
    pid: int
    decimal_precision: int
    opened_at_ms: int
    head: int
    accepted_loss: str | None

    def pack(self) -> bytes:
        """The bytes described at the head of this file."""
        return sealed(self._asdict())

    @classmethod
    def unpack(cls, data: bytes, where: str = "epoch") -> Epoch:
        """Read ``pack``'s bytes.  ChecksumMismatch with the position ``where``."""
        return cls(**unsealed(data, where))


class JournalIdentity(NamedTuple):
    """What a journal is, fixed when it is created and carried wherever its history goes.

    ``digest_every``: 0 where every entry carries digests (engines with tables), else every how many commands.
    ``changes``: "rows" or "none".  ``dedup_window_s``: how long a request id is remembered at the least.
    """

    journal_id: uuid.UUID
    stream: str
    engine: str
    seed: int
    digest_every: int
    changes: str
    dedup_window_s: int
    created_at_ms: int

    def pack(self) -> bytes:
        """The bytes described at the head of this file."""
        return sealed(self._asdict())

    @classmethod
    def unpack(cls, data: bytes, where: str = "identity") -> JournalIdentity:
        """Read ``pack``'s bytes.  ChecksumMismatch with the position ``where``."""
        return cls(**unsealed(data, where))


def sealed(document: dict[str, Any]) -> bytes:
    """A document as described at the head of this file: its encoding, and the checksum of that."""
    data = values.encode(document)
    return data + xxhash.xxh3_128_digest(data)


def unsealed(data: bytes, where: str) -> dict[str, Any]:
    """The document of ``sealed``'s bytes.  ChecksumMismatch with the position ``where``."""
    body, seal = data[:-16], data[-16:]
    found = xxhash.xxh3_128_digest(body)
    if found != seal:
        raise ChecksumMismatch(
            "what is stored does not match its checksum",
            position=where,
            expected=seal.hex(),
            found=found.hex(),
            hint="restore a copy",
        )
    document: dict[str, Any] = values.decode(body)
    return document
