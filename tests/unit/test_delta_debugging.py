"""ddmin: what it gives still shows it, nothing of it can be left out, and it is bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.reducing.delta_debugging import smallest


@given(st.lists(st.integers(0, 40), max_size=40, unique=True), st.data())
@settings(max_examples=200)
def test_nothing_of_what_is_given_can_be_left_out(items: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.sets(st.sampled_from(items), max_size=5)) if items else set()
    tried: list[tuple[int, ...]] = []

    def shows(some: list[int]) -> bool:
        tried.append(tuple(some))
        return wanted <= set(some)

    found = smallest(items, shows, runs_max=10_000)
    assert found.items == [item for item in items if item in wanted]
    assert found.exact
    assert found.runs == len(tried) == len(set(tried))


@given(st.integers(0, 2**12 - 1).map(lambda seed: {n for n in range(12) if seed >> n & 1}), st.data())
@settings(max_examples=100)
def test_what_shows_by_no_rule_is_still_shrunk_to_what_cannot_be_shrunk(needed: set[int], data: st.DataObject) -> None:
    table: dict[tuple[int, ...], bool] = {}

    def shows(some: list[int]) -> bool:
        return table.setdefault(tuple(some), len(some) == 12 or (needed <= set(some) and data.draw(st.booleans())))

    found = smallest(range(12), shows, runs_max=10_000)
    assert shows(found.items)
    if found.items:
        assert not any(shows([one for one in found.items if one != left]) for left in found.items)


def test_it_stops_where_the_runs_are_used_up_with_the_smallest_so_far() -> None:
    calls = []

    def shows(some: list[int]) -> bool:
        calls.append(some)
        return {3, 700} <= set(some)

    found = smallest(range(1000), shows, runs_max=10)
    assert not found.exact
    assert len(calls) == found.runs == 10
    assert {3, 700} <= set(found.items)
    assert smallest([], shows, runs_max=0) == ([], 0, True)
