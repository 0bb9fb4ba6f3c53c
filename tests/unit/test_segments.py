"""The plan of a verification in parallel: whole, in order, balanced, and cut only where that pays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recovery.verifying.segments import FOLD_SPEED, START, Segment, plan

MILLION = 1_000_000


def makes_up(segments: list[Segment], after: int, last: int) -> bool:
    ends = [after, *(segment.until for segment in segments)]
    return ends == [*(segment.after for segment in segments), last] and ends == sorted(set(ends))


def test_images_at_hand_are_where_it_is_cut() -> None:
    images = list(range(10_000, MILLION, 10_000))
    segments = plan(0, MILLION, images, jobs=2, can_fold=True)
    assert makes_up(segments, 0, MILLION)
    assert len(segments) in (2, 4, 8)
    assert {segment.after for segment in segments[1:]} <= set(images)
    assert max(each.until - each.after for each in segments) <= MILLION / len(segments) * 1.1


def test_without_images_later_segments_are_shorter_by_the_way_to_them() -> None:
    first, second = plan(0, MILLION, [], jobs=2, can_fold=True)
    assert first.until == second.after
    way = second.after / FOLD_SPEED
    assert abs((first.until - first.after) - (way + second.until - second.after)) < 10
    assert 0.5 * MILLION < first.until < 0.6 * MILLION
    assert plan(0, MILLION, [], jobs=2, can_fold=False) == [Segment(0, MILLION)]


def test_what_is_not_recorded_is_cut_at_images_alone() -> None:
    segments = plan(0, MILLION, [300_000, 900_000], jobs=4, can_fold=False)
    assert {segment.after for segment in segments[1:]} <= {300_000, 900_000}
    assert len(segments) > 1
    assert makes_up(segments, 0, MILLION)


def test_a_short_history_is_one_segment() -> None:
    assert plan(0, START, [START // 2], jobs=4, can_fold=True) == [Segment(0, START)]
    assert plan(7, 7 + 100, [], jobs=8, can_fold=True) == [Segment(7, 107)]
    assert plan(0, MILLION, [500_000], jobs=1, can_fold=True) == [Segment(0, MILLION)]


@given(
    st.integers(0, 5_000),
    st.integers(1, 300_000),
    st.sets(st.integers(1, 300_000), max_size=30),
    st.integers(1, 9),
    st.booleans(),
)
def test_every_plan_is_whole(after: int, size: int, images: set[int], jobs: int, can_fold: bool) -> None:
    segments = plan(after, after + size, sorted(images), jobs=jobs, can_fold=can_fold)
    assert makes_up(segments, after, after + size)
    assert len(segments) <= 4 * jobs
    if not can_fold:
        assert {segment.after for segment in segments[1:]} <= images
