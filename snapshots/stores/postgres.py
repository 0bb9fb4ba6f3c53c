"""Images in a PostgreSQL database, ``postgresql://…``, in chunks of ``CHUNK_BYTES`` (stores/sql/postgresql/0002_images.sql).

``put`` writes the chunks one by one, each committed by itself, under an id that has no name yet: no transaction is open while an
image is being made.  Giving it its name is one statement, which the unique index refuses where the name is taken.  What was never
finished is swept by the next ``put`` once it is a day old; its writer, should it live after all, then finds it gone.
"""

from __future__ import annotations

import errno
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar, cast

import psycopg

from journal.errors import RecoveryError, StoreUnavailable
from journal.files import kill_point
from journal.postgres_connection import Db, Link, PostgresPlace, parse
from journal.postgres_schema import require_schema
from snapshots.store import SnapshotStore

T = TypeVar("T")

CHUNK_BYTES: Final = 2**20

_BEGIN: Final = "INSERT INTO engine_images (image, size) VALUES (%s, 0) ON CONFLICT (image) DO NOTHING"
# Twice is once: a chunk is sent again where the answer to it was lost.
_CHUNK: Final = "INSERT INTO engine_image_chunks VALUES (%s, %s, %b) ON CONFLICT (image, number) DO NOTHING"
_PUBLISH: Final = """\
UPDATE engine_images SET name = %(name)s, size = %(size)s WHERE image = %(image)s AND (name IS NULL OR name = %(name)s)"""
_DISCARD: Final = "DELETE FROM engine_images WHERE image = %s AND name IS NULL"
_SWEEP: Final = "DELETE FROM engine_images WHERE name IS NULL AND began_at < now() - interval '1 day'"
_FIND: Final = "SELECT image, size FROM engine_images WHERE name = %s"
_READ: Final = "SELECT data FROM engine_image_chunks WHERE image = %s AND number = %s"
# By the bytes of the name: 0 comes right after /.
_NAMES: Final = "SELECT name FROM engine_images WHERE name > %s AND name < %s ORDER BY name"


class PostgresSnapshots(SnapshotStore):
    """Rows of one database; usable from any thread.  Made by ``connect``."""

    def __init__(self, place: PostgresPlace) -> None:
        self.location = place.location
        self._link = Link(place)
        self._pid = os.getpid()
        self.durable = False

    @classmethod
    def connect(cls, url: str) -> PostgresSnapshots:
        """Connect.  StoreUnavailable where there is no server, or no tables: ``recovery migrate`` makes them."""
        place = parse(url)
        store = cls(place)
        store._link.open()
        store._link.run(lambda db: require_schema(db, place))
        store.durable = store._link.durable
        return store

    def put(self, name: str, chunks: Iterable[bytes]) -> bool:
        """Chunks, then the name."""
        if self._run(_one, _FIND, (name,)) is not None:
            return False
        image = uuid.uuid4()
        self._run(_done, _SWEEP)
        self._run(_done, _BEGIN, (image,))
        try:
            size = 0
            for number, chunk in enumerate(_pieces(chunks)):
                self._run(_done, _CHUNK, (image, number, chunk))
                size += len(chunk)
                kill_point("image.write")
            return self._publish(image, name, size)
        finally:
            with suppress(RecoveryError):  # a leftover is swept later; what happened above is what counts
                self._run(_done, _DISCARD, (image,))

    def _publish(self, image: uuid.UUID, name: str, size: int) -> bool:
        kill_point("publish.before")
        with self._link.turn:
            self._link.warnings.clear()
            done = self._run(_named, _PUBLISH, {"image": image, "name": name, "size": size})
            warned = bool(self._link.warnings)
        kill_point("publish.after")
        if done == 0:
            raise StoreUnavailable(f"{self.location}: {name} was swept while it was being written", hint="try again")
        if warned:
            raise StoreUnavailable(f"{self.location} did not wait for its synchronous standby", hint="try again")
        return done is not None

    def open(self, name: str) -> BinaryIO:
        """A buffered reader that holds one chunk at a time."""
        image, size = self._get(name)
        return cast(BinaryIO, io.BufferedReader(_Chunks(partial(self._chunk, image), size, name), CHUNK_BYTES))

    def names(self, folder: str) -> list[str]:
        """The names of a folder, by one range of the index."""
        return [name for (name,) in self._run(_all, _NAMES, (f"{folder}/", f"{folder}0"))]

    def size(self, name: str) -> int:
        """As it was when the name was given."""
        return self._get(name)[1]

    def delete(self, name: str) -> None:
        """The chunks go with it."""
        self._run(_done, "DELETE FROM engine_images WHERE name = %s", (name,))

    def _get(self, name: str) -> tuple[uuid.UUID, int]:
        row = self._run(_one, _FIND, (name,))
        if row is None:
            raise StoreUnavailable(f"there is no {name} in {self.location}")
        return row[0], row[1]

    def _chunk(self, image: uuid.UUID, number: int) -> bytes | None:
        row = self._run(_one, _READ, (image, number))
        return None if row is None else bytes(row[0])

    def _run(self, what: Callable[[Db, str, Any], T], query: str, parameters: Any = ()) -> T:
        return self._link.run(lambda db: what(db, query, parameters))

    def __del__(self) -> None:
        if os.getpid() == self._pid:
            self._link.close()


class _Chunks(io.RawIOBase):
    """The bytes of one image, fetched a chunk at a time.  OSError where they cannot be read, or end too early."""

    def __init__(self, fetch: Callable[[int], bytes | None], size: int, name: str) -> None:
        self._fetch, self._left, self._name = fetch, size, name
        self._number, self._chunk = 0, memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As much as the chunk at hand holds."""
        if not self._chunk and self._left:
            self._chunk = memoryview(self._next())
        taken = min(len(buffer), len(self._chunk))
        buffer[:taken] = self._chunk[:taken]
        self._chunk = self._chunk[taken:]
        return taken

    def _next(self) -> bytes:
        try:
            chunk = self._fetch(self._number)
        except RecoveryError as error:
            raise OSError(errno.EIO, str(error), self._name) from error
        if not chunk or len(chunk) > self._left:
            raise OSError(errno.EIO, "the image is not whole", self._name)
        self._number += 1
        self._left -= len(chunk)
        return chunk


def _one(db: Db, query: str, parameters: Any) -> tuple[Any, ...] | None:
    with db.cursor(binary=True) as cursor:
        return cursor.execute(query.encode(), parameters).fetchone()


def _all(db: Db, query: str, parameters: Any) -> list[tuple[Any, ...]]:
    return db.execute(query.encode(), parameters).fetchall()


def _done(db: Db, query: str, parameters: Any) -> int:
    return db.execute(query.encode(), parameters).rowcount


def _named(db: Db, query: str, parameters: Any) -> int | None:
    """How many rows were changed; None where the name is taken."""
    try:
        return _done(db, query, parameters)
    except psycopg.errors.UniqueViolation:
        return None


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of CHUNK_BYTES, the last one shorter."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            data = b"".join(waiting)
            whole = size - size % CHUNK_BYTES
            yield from (data[at : at + CHUNK_BYTES] for at in range(0, whole, CHUNK_BYTES))
            waiting, size = [data[whole:]], size - whole
    if size:
        yield b"".join(waiting)
