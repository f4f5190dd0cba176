"""Counts the instructions of ResNet-18's four binary convolutions under an emulator, against FP32.

    python docs/results/arm64/count.py [OUTPUT.json]

Each is a Binarize (packing, from float in NHWC) and a BinaryConv2dAct (scale, bias, PReLU) with the
project's kernels, against a Conv with bias and ReLU, both in ONNX Runtime's own aarch64 build. What ONNX
Runtime's profile adds to every node is counted at nodes that do next to nothing, and taken off. Needs
qemu-user, g++-aarch64-linux-gnu, cmake, and for the modelled cycles llvm-mca (version 15 or newer).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dirnet_convert.bench.arm64.artifacts import arm64_build, runtime_library
from dirnet_convert.bench.arm64.emulator import CPU, Counted, open_emulator
from dirnet_convert.bench.arm64.job import JobEngine, JobFolder, read_answer
from dirnet_convert.bench.arm64.modelled import binary_loop, modelled_loops
from dirnet_convert.bench.engines import EngineKind, random_inputs
from dirnet_convert.bench.layers import LayerShape, float_layer_model
from dirnet_convert.bench.profile import DOMAIN, read_profile
from dirnet_convert.files import write_atomic
from dirnet_convert.runtime.session import Kernels, load_session

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))
SEED = 0
RUNS = 3
IDLE = "idle"


def binary_model(channels: int, size: int) -> onnx.ModelProto:
    """Return Binarize and BinaryConv2dAct of a 3x3 convolution, (1, H, W, C) float32 in and out."""
    generator = np.random.default_rng(SEED)
    weight = generator.integers(0, 2**64, (channels, 3, 3, channels // 64), dtype=np.uint64)
    names = ("scale", "bias", "threshold")
    constants = {name: generator.standard_normal(channels, dtype=np.float32) for name in names}
    constants["slope"] = generator.uniform(0.05, 0.5, channels).astype(np.float32)
    nodes = [
        helper.make_node(
            "Binarize", ["x", "threshold"], ["bits"], "binarize", domain=DOMAIN, channels=channels
        ),
        helper.make_node(
            "BinaryConv2dAct",
            ["bits", "weight", "scale", "bias", "slope"],
            ["y"],
            "conv",
            domain=DOMAIN,
            channels=channels,
            kernel_shape=[3, 3],
            strides=[1, 1],
            pads=[1, 1, 1, 1],
            dilations=[1, 1],
            group=1,
            clip_min=float("-inf"),
            clip_max=float("inf"),
        ),
    ]
    shape = [1, size, size, channels]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in {"weight": weight, **constants}.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def idle_model() -> onnx.ModelProto:
    """Return three nodes that do next to nothing, (64,) float32 in and out."""
    nodes = [
        helper.make_node(op, [source], [target])
        for op, source, target in (("Relu", "x", "a"), ("Neg", "a", "b"), ("Relu", "b", "y"))
    ]
    graph = helper.make_graph(
        nodes,
        IDLE,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Instructions of a layer, without what the profile costs each node; ``idle`` is that."""

    fp32: int
    binarize: int
    conv: int
    idle: int
    equal: bool

    @property
    def binary(self) -> int:
        """Packing and convolution."""
        return self.binarize + self.conv


def count(channels: int, size: int, counted: Counted) -> Counts:
    """Return the instructions of every operator, and whether the binary output is equal here."""
    shape = LayerShape("Conv", (1, channels, size, size), channels, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    fp32, binary = str(EngineKind.FP32), str(EngineKind.BINARY)
    protos = {
        fp32: float_layer_model(shape, SEED),
        binary: binary_model(channels, size),
        IDLE: idle_model(),
    }
    with open_emulator() as emulator, tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "job"
        folder.mkdir()
        runtime = runtime_library(onnxruntime.__version__)
        job = JobFolder(folder, str(runtime), str(arm64_build().library))
        expected = {}
        for kind, proto in protos.items():
            path = Path(name) / f"{kind}.onnx"
            onnx.save(proto, str(path))
            kernels = Kernels.DIRNET if kind == binary else Kernels.STOCK
            session = load_session(path, threads=1, kernels=kernels)
            inputs = random_inputs(session, 1, SEED)
            outputs = tuple(entry.name for entry in session.get_outputs())
            expected[kind] = session.run(outputs, inputs)
            job.add(JobEngine(kind, path, kind == binary, inputs, outputs))
        job.threads(1)
        job.check()
        job.profile(RUNS, 1)
        answer = read_answer(emulator.run(folder, job.close(), counted), "The runner")
        (there,) = job.outputs(binary, [np.dtype(np.float32)])
        fewest: dict[str, int] = {}
        for kind, proto in protos.items():
            events = json.loads((folder / answer.parts[0].profiles[kind]).read_text())
            for node in read_profile(events, proto, warmup_runs=1).nodes:
                name_of = IDLE if kind == IDLE else node.op
                instructions = int(node.fastest_ms * 1000)
                fewest[name_of] = min(instructions, fewest.get(name_of, instructions))
    idle = fewest[IDLE]
    return Counts(
        fp32=fewest.get("FusedConv", fewest.get("Conv", 0)) - idle,
        binarize=fewest["Binarize"] - idle,
        conv=fewest["BinaryConv2dAct"] - idle,
        idle=idle,
        equal=there.tobytes() == expected[binary][0].tobytes(),
    )


def main() -> None:
    """Count all four shapes and write the figures."""
    output = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("counts.json"))
    library = arm64_build().library
    rows = []
    for channels, size in SHAPES:
        every = count(channels, size, Counted.ALL)
        vector = count(channels, size, Counted.VECTOR)
        units = channels * channels * 9 * size * size / 128
        row = {
            "channels": channels,
            "size": size,
            "bit_exact": every.equal,
            "fp32_instructions": every.fp32,
            "binarize_instructions": every.binarize,
            "binary_conv_instructions": every.conv,
            "profile_instructions_of_a_node": every.idle,
            "times_fewer_instructions": every.fp32 / every.binary,
            "times_fewer_with_the_profile": (every.fp32 + every.idle) / (every.binary + 2 * every.idle),
            "instructions_per_128_macs": every.binary / units,
            "vector_instructions_per_128_macs": vector.binary / units,
        }
        rows.append(row)
        print(json.dumps(row))
    loop = binary_loop(library)
    result = {
        "emulated": True,
        "what": "instructions counted under qemu-user, not time",
        "cpu": CPU,
        "onnxruntime": onnxruntime.__version__,
        "inner_loop": {
            "macs": loop.macs,
            "instructions": len(loop.text),
            "vector_instructions": loop.vector,
            "vector_instructions_per_128_macs": loop.vector / (loop.macs / 128),
        },
        "layers": rows,
        "modelled": [
            {**dataclasses.asdict(item), "macs_per_cycle": item.macs_per_cycle}
            for item in modelled_loops(library, runtime_library(onnxruntime.__version__))
        ],
    }
    write_atomic(output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
