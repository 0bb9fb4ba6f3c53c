"""CursorStoreContract: what every place for cursors must do, as tests.  Derive, and give ``stores``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from journal.cursors import CursorStore
from journal.errors import JournalInUse

STREAM = "main"


class CursorStoreContract:
    """Derive a test class and give it a fixture ``cursors``: an empty store."""

    @pytest.fixture
    def cursors(self) -> Iterator[CursorStore]:
        """An empty store.  Override."""
        raise AssertionError("override the fixture cursors")

    def test_a_cursor_is_there_once_it_is_written(self, cursors: CursorStore) -> None:
        """Holding makes none."""
        assert cursors.read(STREAM, "mail") is None
        hold = cursors.hold(STREAM, "mail")
        assert hold.read() is None
        assert cursors.names(STREAM) == []
        hold.write(b"one")
        assert hold.read() == cursors.read(STREAM, "mail") == b"one"
        hold.write(b"two, which is longer")
        assert hold.read() == cursors.read(STREAM, "mail") == b"two, which is longer"
        hold.write(b"3")
        hold.release()
        assert cursors.read(STREAM, "mail") == b"3"

    def test_names_are_of_one_stream_and_sorted(self, cursors: CursorStore) -> None:
        """Whatever the streams are called."""
        streams = (STREAM, "main2", "a/b c@ä", "..")
        for stream in streams:
            for name in ("mail", "a.b-c_d", "Lake"):
                hold = cursors.hold(stream, name)
                hold.write(f"{stream} {name}".encode())
                hold.release()
        for stream in streams:
            assert cursors.names(stream) == ["Lake", "a.b-c_d", "mail"]
            assert cursors.read(stream, "mail") == f"{stream} mail".encode()
        assert cursors.names("another") == []

    def test_one_holds_a_cursor_at_a_time(self, cursors: CursorStore) -> None:
        """Another name, and another stream, are another cursor."""
        hold = cursors.hold(STREAM, "mail")
        with pytest.raises(JournalInUse) as refused:
            cursors.hold(STREAM, "mail")
        assert "mail" in str(refused.value)
        assert refused.value.hint
        cursors.hold(STREAM, "lake").release()
        cursors.hold("other", "mail").release()
        hold.write(b"still")
        hold.release()
        hold.release()
        again = cursors.hold(STREAM, "mail")
        assert again.read() == b"still"
        again.release()

    def test_a_cursor_taken_away_is_gone_and_can_begin_again(self, cursors: CursorStore) -> None:
        """Taking away what is not there is no error."""
        hold = cursors.hold(STREAM, "mail")
        hold.remove()
        hold.write(b"one")
        hold.remove()
        assert hold.read() is None
        assert cursors.names(STREAM) == []
        assert cursors.read(STREAM, "mail") is None
        hold.write(b"two")
        hold.release()
        assert cursors.names(STREAM) == ["mail"]

    def test_a_closed_store_opens_again_when_asked(self, cursors: CursorStore) -> None:
        """And closing concerns no hold."""
        hold = cursors.hold(STREAM, "mail")
        cursors.close()
        cursors.close()
        hold.write(b"one")
        hold.release()
        assert cursors.read(STREAM, "mail") == b"one"
        cursors.close()
