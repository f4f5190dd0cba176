"""What a training frees stays in the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Three tensors of 16 MiB, written and freed ten times, and the page faults of the last five rounds; the first
# ones stretch the heap.
ROUNDS = """
import resource, torch
from dirnet_convert.cli.allocator import keep_freed_memory
print(keep_freed_memory())
faults = []
for _ in range(10):
    kept = [torch.ones(2**22) for _ in range(3)]
    del kept
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-6])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_freed_tensors_are_used_again_without_page_faults():
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True)
    told, faults = done.stdout.split()
    assert told == "True"
    # The rounds write 12,288 pages of 4 KiB each.
    assert int(faults) < 1000
