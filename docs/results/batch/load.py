"""Prints how long a session takes to open, and the memory that it adds to a process with ONNX Runtime in it.

python docs/results/batch/load.py MODEL.onnx
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

from dirnet_convert.runtime.session import load_session

OPENINGS = 12
MEGABYTE = 1e6


def resident_mb() -> float:
    """Return this process's resident memory in MB (Linux)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / MEGABYTE


def main(path: str) -> None:
    """Open and run the model, then open it some more times."""
    # Its library is in the process from here on.
    onnxruntime.set_default_logger_severity(3)
    before = resident_mb()
    session = load_session(path, threads=1)
    opened = resident_mb()
    entry = session.get_inputs()[0]
    image = np.zeros([size if isinstance(size, int) else 1 for size in entry.shape], np.float32)
    session.run(None, {entry.name: image})
    print(f"memory: {opened - before:.1f} MB when opened, {resident_mb() - before:.1f} MB after a run")
    del session
    times = []
    for _ in range(OPENINGS):
        start = time.perf_counter()
        load_session(path, threads=1)
        times.append(1e3 * (time.perf_counter() - start))
    print(f"opened in {sorted(times)[OPENINGS // 2]:.1f} ms (median of {OPENINGS})")


if __name__ == "__main__":
    main(sys.argv[1])
