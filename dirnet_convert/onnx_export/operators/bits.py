"""Signs packed into 64-bit words: the layout that the exporter, the files and every kernel share."""

from __future__ import annotations

import numpy as np

WORD_BITS = 64


def word_count(channels: int) -> int:
    """Return the number of 64-bit words that hold ``channels`` bits."""
    return -(-channels // WORD_BITS)


def pack_bits(x: np.ndarray) -> np.ndarray:
    """Pack the signs of ``x`` (..., C) along the channels into uint64 words (..., ceil(C/64)).

    A bit is 1 where x >= 0 (+1, both zeros included) or where a boolean is true, else 0 (-1, NaN included);
    the least significant bit comes first and the spare bits are 0.

    Source: docs/binary-conventions.md.
    """
    bits = x if x.dtype == np.bool_ else x >= 0
    channels = x.shape[-1]
    spare = word_count(channels) * WORD_BITS - channels
    padded = np.pad(bits, [(0, 0)] * (x.ndim - 1) + [(0, spare)])
    packed = np.packbits(padded, axis=-1, bitorder="little")
    # "<u8" fixes the byte order of the words whatever machine packs them.
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False)


def unpack_bits(words: np.ndarray, channels: int) -> np.ndarray:
    """Unpack words (..., ceil(C/64)) into float32 +1 and -1 (..., C); the spare bits are not looked at.

    Raises:
        ValueError: the last axis does not hold ceil(channels/64) words.
    """
    if words.dtype != np.uint64 or words.shape[-1] != word_count(channels):
        raise ValueError(
            f"{channels} channels need uint64 words (..., {word_count(channels)}), got {words.dtype} "
            f"{words.shape}"
        )
    octets = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=channels, bitorder="little")
    return np.where(bits == 1, np.float32(1), np.float32(-1))
