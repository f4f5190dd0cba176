"""Which instruction sets the compiled kernels can use on this machine."""

from __future__ import annotations

import ctypes
import enum

from dirnet_convert.errors import DirnetError
from dirnet_convert.runtime.library import c_interface


class Isa(enum.StrEnum):
    """The instruction sets that kernels exist for, by the names that DIRNET_ISA takes."""

    REFERENCE = "reference"
    PORTABLE = "portable"
    AVX2 = "avx2"
    AVX512 = "avx512"
    NEON = "neon"


def isa_numbers() -> dict[Isa, int]:
    """Return the library's number of each instruction set that it was built with and this CPU has.

    Raises:
        DirnetError: the compiled library is missing or does not load.
    """
    library = c_interface()
    return {
        Isa(library.dirnet_isa_name(number).decode()): number
        for number in range(library.dirnet_isa_count())
        if library.dirnet_isa_built(number) and library.dirnet_isa_supported(number)
    }


def available_isas() -> tuple[Isa, ...]:
    """Return the instruction sets that the library was built with and this CPU has, slowest first.

    Raises:
        DirnetError: the compiled library is missing or does not load.
    """
    return tuple(isa_numbers())


def chosen_isa() -> Isa:
    """Return the instruction set that kernels run with: the fastest, or what DIRNET_ISA names.

    Raises:
        DirnetError: DIRNET_ISA names one that is unknown, not built or not supported by this CPU.
    """
    library = c_interface()
    number = library.dirnet_chosen_isa()
    if number < 0:
        length = library.dirnet_chosen_isa_error(None, 0)
        text = ctypes.create_string_buffer(length + 1)
        library.dirnet_chosen_isa_error(text, length + 1)
        raise DirnetError(text.value.decode())
    return Isa(library.dirnet_isa_name(number).decode())
