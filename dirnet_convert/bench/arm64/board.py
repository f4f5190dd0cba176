"""What kind of machine is at the other end, and the sentences for one that cannot run the benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dirnet_convert.bench.arm64.transport import Done, Transport
from dirnet_convert.errors import DirnetError

_MACHINES = ("aarch64", "arm64")
# Plain POSIX shell: boards and phones have little more.
_QUESTIONS = """
echo "machine $(uname -m)"
echo "system $(uname -sr)"
echo "name $(tr -d '\\000' </sys/firmware/devicetree/base/model 2>/dev/null)"
echo "features $(grep -m1 '^Features' /proc/cpuinfo | cut -d: -f2)"
echo "part $(grep -m1 '^CPU part' /proc/cpuinfo | cut -d: -f2)"
first() { cat "$@" 2>/dev/null | head -n1; }
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  echo "core ${c##*cpu} $(first $c/cpu_capacity $c/cpufreq/cpuinfo_max_freq)"
  echo "governor $(cat $c/cpufreq/scaling_governor 2>/dev/null)"
done
echo "cores $(nproc 2>/dev/null)"
echo "heat $(cat /sys/class/thermal/thermal_zone0/temp 2>/dev/null)"
"""
_MILLIDEGREES = 1000


@dataclass(frozen=True)
class Board:
    """A 64-bit ARM machine; ``capacities`` has its cores' speed, ``heat_c`` is None where it tells none."""

    name: str
    system: str
    features: tuple[str, ...]
    capacities: dict[int, int]
    governors: tuple[str, ...]
    heat_c: float | None


def ask_board(transport: Transport) -> Board:
    """Return what the machine at the other end is.

    Raises:
        DirnetError: the connection fails, or the machine is no 64-bit ARM one.
    """
    facts: dict[str, list[str]] = {}
    for line in ran(transport, _QUESTIONS, "Asking what machine it is").splitlines():
        key, _, value = line.partition(" ")
        facts.setdefault(key, []).append(value.strip())
    machine = facts.get("machine", [""])[0]
    if machine not in _MACHINES:
        kind = "a 32-bit system" if machine.startswith("arm") else machine or "something unknown"
        raise DirnetError(
            f"{transport.name} runs {kind}, not 64-bit ARM; install a 64-bit system there (on a Raspberry "
            "Pi 3 or newer: Raspberry Pi OS, 64-bit)."
        )
    part = facts["part"][0]
    return Board(
        name=facts["name"][0] or (f"{machine}, CPU part {part}" if part else machine),
        system=facts["system"][0],
        features=tuple(facts["features"][0].split()),
        capacities=_capacities(facts.get("core", ()), facts["cores"][0]),
        governors=tuple(sorted({name for name in facts.get("governor", ()) if name})),
        heat_c=_degrees(facts["heat"][0]),
    )


def heat_c(transport: Transport) -> float | None:
    """Return the machine's temperature in degrees Celsius, None where it tells none."""
    return _degrees(transport.run("cat /sys/class/thermal/thermal_zone0/temp").output.strip())


def free_bytes(transport: Transport, folder: str) -> int | None:
    """Return the room that is left for ``folder``, None where the machine does not tell."""
    lines = transport.run(f"df -Pk {folder}").output.splitlines()
    words = lines[-1].split() if lines else []
    return int(words[3]) * 1024 if len(words) > 3 and words[3].isdigit() else None


def ran(transport: Transport, command: str, what: str) -> str:
    """Return the output of ``command``, which must succeed.

    Raises:
        DirnetError: it fails; the sentence says ``what`` did.
    """
    done: Done = transport.run(command)
    if done.status != 0:
        reason = " ".join((done.errors or done.output).split()) or f"status {done.status}"
        raise DirnetError(f"{what} failed on {transport.name}: {reason.rstrip('.')}.")
    return done.output


def _capacities(lines: Iterable[str], count: str) -> dict[int, int]:
    """Return each core's capacity; where no core is seen, ``count`` cores that are alike."""
    # A sandbox may hide /sys: then the shell's pattern comes back as it is, and no number with it.
    told = [line.partition(" ") for line in lines]
    seen = {int(core): int(value) if value.isdigit() else 0 for core, _, value in told if core.isdigit()}
    return seen or dict.fromkeys(range(int(count) if count.isdigit() else 1), 0)


def _degrees(text: str) -> float | None:
    return int(text) / _MILLIDEGREES if text.lstrip("-").isdigit() else None
