"""Hypothesis strategies for plain values."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

decimals = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(map(int, str(digits))), exponent)),
    st.integers(0, 1),
    st.integers(0, 10**30),
    st.integers(-40, 40),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from(
        [0, 1, -1, 127, 128, 255, 256, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]
    )
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
    | decimals
    | st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
    | st.uuids()
)
dict_keys = st.text(max_size=4) | st.binary(max_size=4) | st.integers(-(2**63), 2**64 - 1)
plain: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(dict_keys, inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=12,
)
