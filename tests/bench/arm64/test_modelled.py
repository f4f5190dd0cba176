"""The kernels' inner loop: what the compiler made of it, and its cycles on processor models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dirnet_convert.bench.arm64.artifacts import arm64_build
from dirnet_convert.bench.arm64.modelled import CPUS, InnerLoop, binary_loop, modelled_loops
from dirnet_convert.bench.arm64.tools import find_tool


def test_what_counts_as_vector() -> None:
    loop = InnerLoop(
        "loop", ("ldr b8, [x5, x2]", "add x3, x3, #0x40", "cnt v1.16b, v2.16b", "b.ne 10 <f>"), 128
    )
    assert loop.vector == 2


@pytest.mark.slow
@pytest.mark.usefixtures("emulation")
class TestBuilt:
    def test_vector_instructions_of_the_inner_loop(self) -> None:
        loop = binary_loop(arm64_build().library)
        assert loop.macs >= 16 * 128
        assert 3 < loop.vector / (loop.macs / 128) <= 3.3

    def test_cycles(self, need: Callable[..., None]) -> None:
        if not any(find_tool(f"llvm-mca-{version}") for version in range(15, 31)):
            pytest.skip("not installed: llvm-mca")
        library = arm64_build().library
        loops = modelled_loops(library, library)
        binary = {loop.cpu: loop for loop in loops if loop.name == "binary"}
        assert tuple(binary) == CPUS
        for loop in binary.values():
            # No processor here has more than two vector units.
            assert loop.cycles >= loop.vector_instructions / 3
