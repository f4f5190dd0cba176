"""Times one binary convolution in dirnet and in OpenVINO, without what enters and leaves a network.

    python docs/results/openvino/layers.py [--rounds 15] [--out FILE]

A layer's time is a slope: chains of 12 and of 4 layers with weights of their own, in turns in the same
rounds, (T12 - T4) / 8. What enters and leaves a chain is in both of its times. Two forms: "residual", as in a
Bi-Real network (scale, bias, shortcut, clip, floats out, and their signs for the next one), and "bits"
(scale, bias, signs). Both runtimes' outputs of the long chain are compared, too. The bound is the time of a
layer's taps inside the image at the rate of the library's loop of binary arithmetic on registers alone, which
takes its turn in every round. One thread: with more, ONNX Runtime's waiting threads would disturb what
follows them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from dirnet_convert.bench.engines import bound_call
from dirnet_convert.bench.machine import this_machine
from dirnet_convert.bench.measure import Contestant, Measurement, MeasureOptions, measure
from dirnet_convert.bench.openvino import bound_openvino_call
from dirnet_convert.bench.peaks import PeakKind, peak_loop
from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.files import write_atomic
from dirnet_convert.onnx_export.exporter import export_onnx
from dirnet_convert.onnx_export.openvino.build import build
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions
from dirnet_convert.runtime.isa import chosen_isa
from dirnet_convert.runtime.openvino import compile_for_cpu
from dirnet_convert.runtime.session import load_session

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))
FORMS = ("residual", "bits")
LONG, SHORT = 12, 4
SEED = 0


class Unit(nn.Module):
    """One binary convolution with what follows it, (N, C, H, W) in and out."""

    def __init__(self, channels: int, form: str) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv = BinaryConv2d.from_conv(conv, ConvertOptions(), EstimatorOptions())
        self.norm = nn.BatchNorm2d(channels)
        self.clip = nn.Hardtanh()
        self.form = form
        with torch.no_grad():
            self.norm.weight.uniform_(0.02, 0.1)
            self.norm.bias.uniform_(-0.5, 0.5)
            self.norm.running_var.fill_(9.0 * channels)
            self.conv.threshold.uniform_(-0.1, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.clip(y + x if self.form == "residual" else y)


def chain(channels: int, length: int, form: str) -> nn.Module:
    """Return ``length`` layers, one after the other, in eval mode."""
    torch.manual_seed(SEED)
    return nn.Sequential(*(Unit(channels, form) for _ in range(length))).eval()


def contestants(channels: int, size: int, form: str, folder: Path) -> tuple[list[Contestant], float]:
    """Return both chains in both runtimes, and the largest difference of the long one's outputs."""
    x = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(SEED))
    made, outputs = [], []
    for length in (LONG, SHORT):
        network = chain(channels, length, form)
        path = folder / f"{length}.onnx"
        export_onnx(network, x, path)
        session = load_session(path, threads=1)
        feeds = {session.get_inputs()[0].name: x.numpy()}
        rival = folder / f"{length}.xml"
        openvino.save_model(build(network, x).model, rival, compress_to_fp16=False)
        compiled = compile_for_cpu(rival, threads=1, batch=1)
        made.append(Contestant(f"dirnet {length}", bound_call(session, feeds)))
        made.append(Contestant(f"openvino {length}", bound_openvino_call(compiled, x.numpy())))
        outputs.append((session.run(None, feeds)[0], compiled(x.numpy())[0]))
    ours, theirs = outputs[0]
    return made, float(np.abs(ours - theirs).max())


def slopes(measured: Measurement, name: str) -> list[float]:
    """Return the microseconds of one layer in each round."""
    long, short = (measured.timing(f"{name} {length}").block_ms for length in (LONG, SHORT))
    return [1e3 * (a - b) / (LONG - SHORT) for a, b in zip(long, short, strict=True)]


def bounds(measured: Measurement, loop_macs: int, macs: int) -> list[float]:
    """Return the microseconds that ``macs`` multiply-adds take at the loop's rate in each round."""
    return [1e3 * block * macs / loop_macs for block in measured.timing("bound").block_ms]


def measure_shape(channels: int, size: int, form: str, rounds: int) -> dict[str, Any]:
    """Return the times of one shape, the ratios within a round, and the difference."""
    loop = peak_loop(chosen_isa(), PeakKind.BINARY)
    if loop is None:
        raise SystemExit(
            f"There is no loop of binary arithmetic for {chosen_isa()}: no bound to compare with."
        )
    with tempfile.TemporaryDirectory() as folder:
        made, difference = contestants(channels, size, form, Path(folder))
        made.append(Contestant("bound", loop))
        measured = measure(made, MeasureOptions(rounds=rounds, block_ms=60))
    ours, theirs = slopes(measured, "dirnet"), slopes(measured, "openvino")
    # Multiply-adds of a 3x3 convolution with padding 1 on taps inside the image.
    bound = bounds(measured, loop(), (3 * size - 2) ** 2 * channels**2)
    return {
        "channels": channels,
        "size": size,
        "form": form,
        "dirnet_us": statistics.median(ours),
        "openvino_us": statistics.median(theirs),
        "bound_us": statistics.median(bound),
        "share_of_bound": statistics.median(a / b for a, b in zip(bound, ours, strict=True)),
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "largest_difference": difference,
        "quiet_rounds": measured.quiet_rounds,
        "only_quiet_rounds_counted": measured.only_quiet,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for form in FORMS:
        for channels, size in SHAPES:
            row = measure_shape(channels, size, form, options.rounds)
            rows.append(row)
            print(
                f"{form:8} {channels:3} x {size} x {size}: dirnet {row['dirnet_us']:.1f} us, OpenVINO "
                f"{row['openvino_us']:.1f} us, ratio {row['ratio']:.3f}, {row['share_of_bound']:.3f} of the "
                f"bound, difference {row['largest_difference']:.1g}, "
                f"quiet {row['quiet_rounds']}/{options.rounds}",
                flush=True,
            )
    if options.out is not None:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        machine = this_machine(("openvino",)).__dict__
        write_atomic(
            options.out,
            json.dumps({"date": date, "machine": machine, "isa": str(chosen_isa()), "rows": rows}, indent=1)
            + "\n",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
