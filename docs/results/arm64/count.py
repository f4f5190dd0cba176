"""Counts the instructions of ResNet-18's four binary convolutions under an emulator, against FP32.

    python docs/results/arm64/count.py [OUTPUT.json]

Each is a Binarize (packing, from float in NHWC) and a BinaryConv2dAct (scale, bias, PReLU) with the project's
kernels, against a Conv with bias and ReLU, both in ONNX Runtime's own aarch64 build. Needs qemu-user,
g++-aarch64-linux-gnu, cmake, and for the modelled cycles llvm-mca (version 15 or newer).
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


def binary_model(channels: int, size: int) -> onnx.ModelProto:
    """Return Binarize and BinaryConv2dAct of a 3x3 convolution, (1, H, W, C) float32 in and out."""
    generator = np.random.default_rng(SEED)
    weight = generator.integers(0, 2**64, (channels, 3, 3, channels // 64), dtype=np.uint64)
    names = ("scale", "bias", "slope", "threshold")
    constants = {name: generator.standard_normal(channels, dtype=np.float32) for name in names}
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


def count(channels: int, size: int, counted: Counted) -> tuple[dict[str, int], bool]:
    """Return the instructions of every operator, and whether the binary output is equal here."""
    shape = LayerShape("Conv", (1, channels, size, size), channels, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    protos = {
        EngineKind.FP32: float_layer_model(shape, SEED),
        EngineKind.BINARY: binary_model(channels, size),
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
            binary = kind is EngineKind.BINARY
            session = load_session(path, threads=1, kernels=Kernels.DIRNET if binary else Kernels.STOCK)
            inputs = random_inputs(session, 1, SEED)
            outputs = tuple(entry.name for entry in session.get_outputs())
            expected[kind] = session.run(outputs, inputs)
            job.add(JobEngine(str(kind), path, binary, inputs, outputs))
        job.threads(1)
        job.check()
        job.profile(RUNS, 1)
        answer = read_answer(emulator.run(folder, job.close(), counted), "The runner")
        (there,) = job.outputs(str(EngineKind.BINARY), [np.dtype(np.float32)])
        counts = {}
        for kind, proto in protos.items():
            events = json.loads((folder / answer.parts[0].profiles[str(kind)]).read_text())
            for node in read_profile(events, proto, warmup_runs=1).nodes:
                counts[node.op] = int(node.fastest_ms * 1000)
    return counts, there.tobytes() == expected[EngineKind.BINARY][0].tobytes()


def main() -> None:
    """Count all four shapes and write the figures."""
    output = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("counts.json"))
    library = arm64_build().library
    rows = []
    for channels, size in SHAPES:
        every, equal = count(channels, size, Counted.ALL)
        vector, _ = count(channels, size, Counted.VECTOR)
        units = channels * channels * 9 * size * size / 128
        binary = every["Binarize"] + every["BinaryConv2dAct"]
        fp32 = every["FusedConv"] if "FusedConv" in every else every["Conv"]
        row = {
            "channels": channels,
            "size": size,
            "bit_exact": equal,
            "fp32_instructions": fp32,
            "binarize_instructions": every["Binarize"],
            "binary_conv_instructions": every["BinaryConv2dAct"],
            "times_fewer_instructions": fp32 / binary,
            "instructions_per_128_macs": binary / units,
            "vector_instructions_per_128_macs": (vector["Binarize"] + vector["BinaryConv2dAct"]) / units,
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
