"""When an image is due, and which may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.errors import UsageError
from snapshots.retention import QUARANTINED, UNVERIFIED, VERIFIED, Held, Retention, expendable
from snapshots.schedule import Moment, Schedule, is_due

HOUR_MS = 3600 * 1000


def held(command_id: int, standing: str = VERIFIED, created_at_ms: int = 0) -> Held:
    return Held(f"image {command_id}", command_id, created_at_ms, standing)


def gone(images: list[Held], keep: int, keep_seconds: int = 0, now_ms: int = HOUR_MS) -> list[int]:
    names = expendable(images, Retention(keep, keep_seconds), now_ms=now_ms)
    return [int(name.split()[1]) for name in names]


def test_by_count() -> None:
    images = [held(command_id) for command_id in (30, 10, 40, 20)]
    assert gone(images, 1) == [10, 20, 30]
    assert gone(images, 3) == [10]
    assert gone(images, 4) == []
    assert gone([], 1) == []


def test_by_age() -> None:
    images = [held(10, created_at_ms=0), held(20, created_at_ms=HOUR_MS - 1000), held(30, created_at_ms=HOUR_MS)]
    assert gone(images, 1, keep_seconds=1) == [10, 20]
    assert gone(images, 1, keep_seconds=2) == [10]
    assert gone(images, 1, keep_seconds=3601) == []


def test_only_verified_ones_count() -> None:
    images = [held(10), held(20), held(30, UNVERIFIED), held(40, QUARANTINED)]
    assert gone(images, 1) == [10]
    assert gone(images, 2) == []
    assert gone([held(10, UNVERIFIED), held(20, UNVERIFIED), held(30)], 1) == [10, 20]
    assert gone([held(10, QUARANTINED), held(20), held(30)], 1) == [20]
    assert gone([held(10, UNVERIFIED), held(20, UNVERIFIED)], 1) == []


def test_keeping_none_is_refused() -> None:
    with pytest.raises(UsageError, match="keep is 0"):
        gone([held(1)], 0)


@given(
    st.dictionaries(
        st.integers(1, 50), st.tuples(st.sampled_from([VERIFIED, UNVERIFIED, QUARANTINED]), st.integers(0, HOUR_MS))
    ),
    st.integers(1, 5),
    st.integers(0, 3600),
)
def test_what_stays(images: dict[int, tuple[str, int]], keep: int, keep_seconds: int) -> None:
    there = [held(command_id, *about) for command_id, about in images.items()]
    going = set(gone(there, keep, keep_seconds))
    verified = sorted(image.command_id for image in there if image.standing == VERIFIED)
    staying = [command_id for command_id in verified if command_id not in going]
    assert staying[-keep:] == verified[-keep:]
    assert not going.intersection(image.command_id for image in there if image.standing == QUARANTINED)
    assert not any(HOUR_MS - images[command_id][1] < keep_seconds * 1000 for command_id in going)
    assert not verified or verified[-1] not in going


def test_due_by_count() -> None:
    every_ten = Schedule(every=10)
    start = Moment(0, 0.0)
    assert not is_due(every_ten, last=start, now=Moment(9, 1e9))
    assert is_due(every_ten, last=start, now=Moment(10, 0.0))
    assert is_due(every_ten, last=Moment(10, 5.0), now=Moment(25, 5.0))
    assert not is_due(every_ten, last=Moment(10, 5.0), now=Moment(19, 5.0))


def test_due_by_seconds_but_never_without_a_command() -> None:
    each_minute = Schedule(seconds=60)
    assert not is_due(each_minute, last=Moment(5, 0.0), now=Moment(5, 1e9))
    assert not is_due(each_minute, last=Moment(5, 100.0), now=Moment(6, 159.9))
    assert is_due(each_minute, last=Moment(5, 100.0), now=Moment(6, 160.0))
    assert not is_due(Schedule(), last=Moment(0, 0.0), now=Moment(10**9, 1e9))
    assert is_due(Schedule(every=10, seconds=60), last=Moment(0, 0.0), now=Moment(10, 1.0))
    assert is_due(Schedule(every=10, seconds=60), last=Moment(0, 0.0), now=Moment(1, 60.0))
