"""A zstd frame whose size is promised beside it: how history files and images hold their payloads."""

from __future__ import annotations

import zstandard


def decompress(decompressor: zstandard.ZstdDecompressor, frame: bytes, size: int) -> bytes:
    """The ``size`` bytes in a frame, with no more memory than that.  ValueError says how it breaks the promise."""
    try:
        # The frame's own statement goes before the limit that is given to the decompressor: hold it to ours first.
        if zstandard.frame_content_size(frame) != size:
            raise ValueError(f"does not hold the {size} bytes it promises")
        return decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
