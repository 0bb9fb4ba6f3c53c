"""Text out of a journal as it may be shown: what would move a cursor, start a line or turn the writing around is spelled out.

What a sender wrote must not be able to colour a terminal, forge a line of a CI log, or hide behind invisible characters.
"""

from __future__ import annotations

import re
from typing import Final

# C0 and C1 controls, line and paragraph separators, zero-width and bidirectional marks, surrogates, the byte order mark.
_HIDDEN: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\\ud800-\\udfff\ufeff]"
)


def visible(text: str) -> str:
    r"""``text`` on one line, each character that does not show as itself written as ``\xNN`` or ``\uNNNN``."""
    return _HIDDEN.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
