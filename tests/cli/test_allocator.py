"""What a training frees stays in the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Where glibc put a block of 20 MiB, and what it did with it when it was freed, as its own statistics tell.
BLOCK = """
import ctypes, sys
from dirnet_convert.cli.allocator import keep_freed_memory

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
class Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in FIELDS.split()]

if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.mallinfo.restype, libc.malloc.restype = Statistics, ctypes.c_void_p
before = libc.mallinfo()
block = libc.malloc(20 * 2**20)
held = libc.mallinfo()
libc.free(ctypes.c_void_p(block))
after = libc.mallinfo()
print(held.hblks - before.hblks, after.arena - before.arena >= 20 * 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
@pytest.mark.parametrize(("told", "seen"), [("kept", "0 True"), ("default", "1 False")])
def test_a_freed_block_stays_in_the_heap(told: str, seen: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCK, told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == seen
