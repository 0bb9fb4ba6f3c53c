"""What a URL may say of itself in public: everything but a password."""

from __future__ import annotations

import re


def redacted(url: str) -> str:
    """The URL without a password, for every message and output."""
    # Up to the *last* @: a password may hold one, unescaped.
    url = re.sub(r"(://[^/?#:@]*:).*@", r"\1***@", url)
    return re.sub(r"((?:^|[?&\s])\w*password\s*=)[^&\s]*", r"\1***", url, flags=re.IGNORECASE)
