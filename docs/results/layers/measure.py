"""Time single layers as FP32 and as binary, in turns: `python docs/results/layers/measure.py [ROUNDS]`.

The layers are those of kernels/bench/shapes. FP32 is ONNX Runtime's Conv with its ReLU; binary is Binarize
and BinaryConv2dAct with float output. Times are of the kernels in ONNX Runtime's profile: without its own
overhead, and for FP32 without the reorders into and out of its blocked layout; the fastest of many calls,
since what else a machine does makes calls slower and never faster. One image, one thread. Writes
layers.json beside this file.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dirnet_convert.bench.engines import EngineKind, random_inputs
from dirnet_convert.bench.layers import LayerShape, float_layer_model
from dirnet_convert.bench.machine import LoadMeter, this_machine
from dirnet_convert.bench.profile import DOMAIN, Profiler
from dirnet_convert.files import write_atomic
from dirnet_convert.runtime.isa import chosen_isa

HERE = Path(__file__).parent
SHAPES = HERE.parents[2] / "kernels" / "bench" / "shapes"
CALLS_PER_TURN = 6
SEED = 0


def read_shapes() -> dict[str, LayerShape]:
    """Return the layers of all files by name."""
    shapes = {}
    for path in sorted(SHAPES.glob("*.txt")):
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                name, *fields = line.split()
                shapes[name] = _shape(fields)
    return shapes


def _shape(fields: list[str]) -> LayerShape:
    channels, height, width, outputs = map(int, fields[:4])
    kernel, strides, pads = map(_pair, fields[4:7])
    dilations = _pair(fields[8]) if len(fields) > 8 else (1, 1)
    return LayerShape(
        op="BinaryConv2dAct",
        input=(1, channels, height, width),
        out_channels=outputs,
        kernel=kernel,
        strides=strides,
        pads=(*pads, *pads),
        dilations=dilations,
        group=int(fields[7]),
    )


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition("x")
    return int(first), int(second or first)


def binary_model(shape: LayerShape) -> onnx.ModelProto:
    """Return a model of Binarize and a binary convolution of ``shape`` with random weights."""
    generator = np.random.default_rng(SEED)
    batch, channels, height, width = shape.input
    group_in = channels // shape.group
    words = -(-group_in // 64)
    weight = generator.integers(0, 2**64, (shape.out_channels, *shape.kernel, words), dtype=np.uint64)
    weight[..., -1] >>= np.uint64(-group_in % 64)
    ones = np.ones(shape.out_channels, np.float32)
    constants = {
        "threshold": np.zeros(channels, np.float32),
        "weight": weight,
        "scale": ones / group_in,
        "bias": ones / 8,
        "slope": ones / 4,
    }
    nodes = [
        helper.make_node("Binarize", ["x", "threshold"], ["bits"], domain=DOMAIN, channels=channels),
        helper.make_node(
            shape.op,
            ["bits", "weight", "scale", "bias", "slope"],
            ["y"],
            domain=DOMAIN,
            channels=channels,
            kernel_shape=shape.kernel,
            strides=shape.strides,
            pads=shape.pads,
            dilations=shape.dilations,
            group=shape.group,
            clip_min=float("-inf"),
            clip_max=float("inf"),
        ),
    ]
    for node, name in zip(nodes, ("binarize", "conv"), strict=True):
        node.name = name
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, height, width, channels])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def measure(shape: LayerShape, rounds: int) -> dict[str, object]:
    """Return the times of both forms' kernels in microseconds, and how much else the machine did."""
    models = {EngineKind.FP32: float_layer_model(shape, SEED), EngineKind.BINARY: binary_model(shape)}
    loads: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        profilers = {}
        for kind, model in models.items():
            path = Path(folder) / f"{kind}.onnx"
            onnx.save(model, str(path))
            profilers[kind] = Profiler(kind, path, 1, lambda session: random_inputs(session, 1, SEED))
        for turn in range(rounds):
            meter = LoadMeter()
            for kind in list(profilers)[:: 1 if turn % 2 == 0 else -1]:
                for _ in range(CALLS_PER_TURN):
                    profilers[kind].call()
            loads.append(meter.read() or 0.0)
        profiles = {kind: profiler.finish() for kind, profiler in profilers.items()}
    nodes = {node.op: 1e3 * node.fastest_ms for node in profiles[EngineKind.BINARY].nodes}
    plain = [n for n in profiles[EngineKind.FP32].nodes if n.op in ("Conv", "FusedConv")]
    assert len(plain) == 1, [n.op for n in profiles[EngineKind.FP32].nodes]
    return {
        "fp32_us": 1e3 * plain[0].fastest_ms,
        "binarize_us": nodes["Binarize"],
        "conv_us": nodes[shape.op],
        "other_load_processors": round(statistics.median(loads), 2),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    rows = []
    for name, shape in read_shapes().items():
        figures = measure(shape, rounds)
        rows.append({"name": name, **dataclasses.asdict(shape), **figures})
        speed = figures["fp32_us"] / (figures["binarize_us"] + figures["conv_us"])
        print(f"{name:24} {speed:6.2f}x", {k: round(v, 2) for k, v in figures.items()}, flush=True)
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(this_machine()),
        "isa": str(chosen_isa()),
        "rounds": rounds,
        "calls_per_round": CALLS_PER_TURN,
        "layers": rows,
    }
    write_atomic(HERE / "layers.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
