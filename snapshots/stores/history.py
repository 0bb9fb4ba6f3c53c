"""The images in an exported history, ``file:PATH`` (journal/history_file.py): read in place, never written."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from journal.errors import StoreUnavailable
from journal.history_file import HistoryFile, ImagePlace
from snapshots.store import SnapshotStore

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class HistoryImages(SnapshotStore):
    """The images of one exported history.  A mark beside a bad one cannot be put: it is found bad again each time."""

    durable = True

    def __init__(self, path: str) -> None:
        self.location = f"file:{path}"
        self._path = path

    def put(self, name: str, chunks: Iterable[bytes]) -> bool:
        """Refused."""
        raise self._read_only(name)

    def open(self, name: str) -> BinaryIO:
        """A reader of the pieces, one after the other."""
        file = self._opened()
        place = next((image for image in file.images if image.name == name), None)
        if place is None:
            file.close()
            raise StoreUnavailable(f"there is no {name} in {self.location}")
        return io.BufferedReader(_Pieces(file, place))

    def names(self, folder: str) -> list[str]:
        """The names below ``folder/``."""
        return sorted(image.name for image in self._images() if image.name.startswith(f"{folder}/"))

    def size(self, name: str) -> int:
        """What the index says."""
        for image in self._images():
            if image.name == name:
                return image.bytes
        raise StoreUnavailable(f"there is no {name} in {self.location}")

    def delete(self, name: str) -> None:
        """Refused."""
        raise self._read_only(name)

    def _images(self) -> list[ImagePlace]:
        file = self._opened()
        file.close()
        return file.images

    def _opened(self) -> HistoryFile:
        with self._mapped():
            return HistoryFile(self._path)

    def _read_only(self, name: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.location} is an exported history, which is only read: {name} cannot be written or deleted in it",
            hint="say --snapshots dir:PATH for images of your own",
        )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(f"{self.location} cannot be read: {error.strerror or error}") from error


class _Pieces(io.RawIOBase):
    """An image's bytes as a file; closes the history with itself."""

    def __init__(self, file: HistoryFile, place: ImagePlace) -> None:
        self._file = file
        self._pieces = file.pieces(place)
        self._rest = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """What is left of this piece, or the next."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
        view = memoryview(buffer)
        taken = self._rest[: len(view)]
        view[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)

    def close(self) -> None:
        """The history too."""
        self._file.close()
        super().close()
