"""Which store a journal's URL names.  Adapters are imported here alone, and only when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from journal.cursors import CursorStore
from journal.errors import UnknownScheme, UsageError
from journal.journal import Journal
from journal.redaction import redacted as redacted
from journal.store import JournalStore

KNOWN: Final = "memory:, memory:NAME, sqlite:PATH, wal:DIR, postgresql://USER@HOST/DATABASE, file:PATH"
POSTGRESQL: Final = ("postgresql", "postgres", "postgresql+psycopg")

_WITHOUT_SCHEMA: Final = ("memory", "wal", "file")
_EXAMPLES: Final = {
    "sqlite": ("sqlite:PATH", "sqlite:.recovery/journal.db"),
    "wal": ("wal:DIR", "wal:.recovery/journal"),
    "file": ("file:PATH", "file:till.journal"),
}


def open_reader(url: str) -> JournalStore:
    """The store of a URL, for read.  UnknownScheme, StoreUnavailable, NewerSchema, CorruptionError."""
    scheme, place = _split(url)
    if scheme == "memory":
        from journal.stores.memory import MemoryStore

        return MemoryStore.open_for_read(place)
    if scheme == "wal":
        from journal.stores.wal import WalStore

        return WalStore.open_for_read(place)
    if scheme == "file":
        from journal.stores.file import FileStore

        return FileStore.open_for_read(place)
    if scheme in POSTGRESQL:
        from journal.stores.postgres import PostgresStore

        return PostgresStore.open_for_read(url)
    from journal.stores.sqlite import SqliteStore

    return SqliteStore.open_for_read(place)


def open_history(path: str) -> Journal:
    """The one stream of an exported history, whatever its name.  Raises what ``open_reader`` does."""
    from journal.stores.file import FileStore

    store = FileStore.open_for_read(path)
    return Journal(store, store.stream)


def open_writer(url: str, *, stream: str = "main", takeover: bool = False) -> JournalStore:
    """The store of a URL, held against every other writer of the stream.

    A file is made where it is missing, and its schema brought up to date; a server's schema is ``recovery migrate``'s.
    ``takeover`` replaces a live writer where that can be done: in PostgreSQL.  Raises what ``open_reader`` does, and
    JournalInUse.
    """
    scheme, place = _split(url)
    if scheme == "memory":
        from journal.stores.memory import MemoryStore

        return MemoryStore.open_for_write(place)
    if scheme == "wal":
        from journal.stores.wal import WalStore

        return WalStore.open_for_write(place)
    if scheme == "file":
        raise UsageError(
            f"{url} is an exported history, which is only read",
            hint="to go on from it, make a journal of it: recovery import",
        )
    if scheme in POSTGRESQL:
        from journal.stores.postgres import PostgresStore

        return PostgresStore.open_for_write(url, stream, takeover=takeover)
    from journal.stores.sqlite import SqliteStore

    return SqliteStore.open_for_write(place)


def open_target(url: str, *, stream: str, takeover: bool, ack: str) -> JournalStore:
    """The journal that another is shipped to, held for write.  Raises what ``open_writer`` does.

    With ``ack="local"`` a server that is lost is waited for by who ships, between two calls, and not within one.
    """
    if ack == "local" and _split(url)[0] in POSTGRESQL:
        url = f"{url}{'&' if '?' in url else '?'}ride_out_s=0"
    return open_writer(url, stream=stream, takeover=takeover)


def open_cursors(url: str) -> CursorStore:
    """Where the outboxes of a journal keep their cursors.  UnknownScheme."""
    scheme, place = _split(url)
    if scheme == "memory":
        from journal.stores.cursor_memory import MemoryCursors

        return MemoryCursors(place)
    if scheme in POSTGRESQL:
        from journal.stores.postgres_cursors import PostgresCursors

        return PostgresCursors(url)
    from journal.stores.cursor_files import FileCursors

    # One file may be reached by many names; its cursors lie beside the file, or within the folder.
    return FileCursors(f"{os.path.realpath(place)}{'/' if scheme == 'wal' else '.'}")


def journal_schema(url: str) -> tuple[int, int]:
    """The version of the schema found there and the one this release wants; (0, 0) for a store without a schema."""
    scheme, place = _split(url)
    if scheme in _WITHOUT_SCHEMA:
        return 0, 0
    if scheme in POSTGRESQL:
        from journal import postgres_schema

        return postgres_schema.schema_state(url)
    from journal.stores.sqlite import schema_state

    return schema_state(place)


def migrate_journal(url: str) -> tuple[int, int]:
    """Bring the schema of an existing file, or of a database, up to date; the versions before and after."""
    if _split(url)[0] in POSTGRESQL:
        from journal import postgres_schema

        return postgres_schema.migrate(url)
    before, wanted = journal_schema(url)
    if before != wanted:
        open_writer(url).close()
    return before, wanted


def journal_schema_sql(url: str) -> str:
    """The SQL that makes the schema, all versions in order; empty for a store without a schema."""
    scheme, _ = _split(url)
    if scheme in _WITHOUT_SCHEMA:
        return ""
    if scheme in POSTGRESQL:
        from journal import postgres_schema

        return postgres_schema.schema_sql(url)
    from journal.stores.sqlite_schema import schema_sql

    return schema_sql()


def cut_torn_tail(url: str, agreed: Callable[[str], bool]) -> str | None:
    """Cut a batch that was never wholly written from a journal's end, where ``agreed`` says so of its description.

    Gives the path of the copy that was kept; None where nothing is torn, where ``agreed`` did not, and for stores that
    settle this by themselves.  Raises what ``open_writer`` does.
    """
    scheme, place = _split(url)
    if scheme != "wal":
        return None
    from journal.stores.wal import WalStore

    WalStore.open_for_read(place).close()
    store = WalStore.open_for_write(place)
    try:
        return store.cut_torn_tail() if store.torn is not None and agreed(str(store.torn)) else None
    finally:
        store.close()


def is_server(url: str) -> bool:
    """Whether a URL, of a journal or of images, names a database server, whose schema is migrated only when asked."""
    return url.partition(":")[0] in POSTGRESQL


def driver_notes() -> dict[str, str]:
    """What to know of the database drivers of this machine, by name; whether or not there is a journal yet."""
    import sqlite3

    from psycopg import pq

    from journal.stores.sqlite_schema import wal_reset_bug

    return {
        "sqlite": sqlite3.sqlite_version,
        "wal_reset_bug": wal_reset_bug(sqlite3.sqlite_version),
        "libpq": ".".join(map(str, divmod(pq.version(), 10_000))),
    }


def _split(url: str) -> tuple[str, str]:
    scheme, colon, place = url.partition(":")
    if scheme in _EXAMPLES and place.startswith("//"):
        form, path = _EXAMPLES[scheme][0], "/" + place.lstrip("/")
        raise UnknownScheme(
            f"{redacted(url)!r} is not how a journal is named: it is {form}, without slashes before it",
            # What holds a password is no path.
            hint=f"use {scheme}:{path} or {scheme}:{path[1:]}" if redacted(url) == url else f"use {form}",
        )
    if scheme in _EXAMPLES and not place:
        form, example = _EXAMPLES[scheme]
        raise UnknownScheme(f"'{scheme}:' names no file", hint=f"use {form}, such as {example}")
    if scheme in POSTGRESQL and not place.startswith("//"):
        raise UnknownScheme(f"'{scheme}:' is followed by //", hint="use postgresql://USER@HOST/DATABASE")
    if scheme in ("memory", *_EXAMPLES, *POSTGRESQL) and colon:
        return scheme, place
    raise UnknownScheme(
        f"{redacted(url)!r} names no journal that this release opens; known are {KNOWN}",
        hint=f"use one of {KNOWN}" if colon else f"use sqlite:{url}",
    )
