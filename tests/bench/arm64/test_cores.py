"""Fast and slow cores told apart."""

from __future__ import annotations

import os

import pytest

from dirnet_convert.bench.arm64.cores import CoreChoice, choose_cores, local_capacities, pin_to

BIG_LITTLE = {0: 400, 1: 400, 2: 400, 3: 400, 4: 900, 5: 900, 6: 900, 7: 1024}


@pytest.mark.parametrize(
    ("capacities", "choice", "cores"),
    [
        (BIG_LITTLE, CoreChoice.BIG, (4, 5, 6, 7)),
        (BIG_LITTLE, CoreChoice.LITTLE, (0, 1, 2, 3)),
        (BIG_LITTLE, CoreChoice.ALL, tuple(range(8))),
        ({0: 0, 1: 0}, CoreChoice.BIG, (0, 1)),
        ({0: 1500000, 1: 1500000}, CoreChoice.LITTLE, (0, 1)),
    ],
)
def test_the_choice(capacities: dict[int, int], choice: CoreChoice, cores: tuple[int, ...]) -> None:
    assert choose_cores(capacities, choice) == cores


def test_this_machine() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system pins no process")
    before = os.sched_getaffinity(0)
    assert set(local_capacities()) == before
    one = min(before)
    try:
        pin_to((one,))
        assert os.sched_getaffinity(0) == {one}
    finally:
        os.sched_setaffinity(0, before)
