"""How this process's memory allocator treats what is freed."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The largest one that glibc takes on 64-bit machines; larger blocks are given back when they are freed.
_LARGEST_KEPT_BYTES = 32 * 2**20
_NEVER_TRIMMED = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed blocks of up to 32 MiB for what is allocated next; return whether the allocator can.

    Every step of a training allocates the same tensors. Given back to the system in between, each of their
    pages is fetched, and cleared, at every step again. Only glibc is told so; others are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES) == 1
    return kept and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIMMED) == 1
