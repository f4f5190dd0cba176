"""Every distinct binary convolution of a network alone, against ONNX Runtime's FP32 one of the same shape.

Two figures for each side, because each hides something: the whole call of a one-node model (with ONNX
Runtime's overhead and, for FP32, the reorders into and out of its blocked layout), and the convolution's
kernel by itself in the runtime's profile (as inside a network, where the reorders are shared). A claim rests
on the smallest of three ratios: of the calls, of the kernels and of the calls' best blocks. On a machine that
is not quiet there is no claim: other processes interrupt FP32's long calls more often than short binary ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dirnet_convert.bench.engines import EngineKind, bound_call, open_engine, random_inputs
from dirnet_convert.bench.measure import Contestant, Measurement, MeasureOptions, measure
from dirnet_convert.bench.peaks import PeakKind, peak_loop
from dirnet_convert.bench.profile import DOMAIN, Profile, Profiler, kernel_ms
from dirnet_convert.errors import UsageError
from dirnet_convert.runtime.isa import chosen_isa
from dirnet_convert.runtime.kernels import ConvGeometry

if TYPE_CHECKING:
    import onnxruntime

CONV_PREFIX = "BinaryConv2d"
_BOUND = "bound"
_FLOAT_CONVS = ("Conv", "FusedConv")
# The IR version that went with opset 18, which every supported ONNX Runtime reads.
_IR_VERSION = 8
_OPSET = 18


@dataclass(frozen=True)
class LayerShape:
    """What makes two binary convolutions the same to a processor."""

    op: str
    input: tuple[int, int, int, int]
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    group: int

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width that come out."""
        channels, height, width = self.input[1:]
        geometry = ConvGeometry(channels, self.kernel, self.strides, self.pads, self.dilations, self.group)
        return geometry.output_size(height, width)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call, padded taps included."""
        height, width = self.output_size
        taps = self.input[1] // self.group * self.kernel[0] * self.kernel[1]
        return self.input[0] * height * width * self.out_channels * taps

    @property
    def valid_macs(self) -> int:
        """Multiply-accumulates of one call on taps inside the image, padding skipped."""
        rows, columns = (
            _taps_inside(size, out, kernel, stride, pad, dilation)
            for size, out, kernel, stride, pad, dilation in zip(
                self.input[2:],
                self.output_size,
                self.kernel,
                self.strides,
                self.pads[:2],
                self.dilations,
                strict=True,
            )
        )
        return self.input[0] * rows * columns * self.input[1] // self.group * self.out_channels

    def __str__(self) -> str:
        batch, channels, height, width = self.input
        kernel = "x".join(map(str, self.kernel))
        text = f"{channels}->{self.out_channels}, {height}x{width}, {kernel}, stride {self.strides[0]}"
        return (
            text
            + (f", group {self.group}" if self.group > 1 else "")
            + (f", batch {batch}" if batch > 1 else "")
        )


def _taps_inside(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Return the kernel's taps inside the image, summed over the output positions of one axis."""
    return sum(
        0 <= position * stride - pad + tap * dilation < size
        for position in range(out)
        for tap in range(kernel)
    )


@dataclass(frozen=True)
class Layer:
    """One distinct shape with the modules that have it, and the node and constants of the first."""

    shape: LayerShape
    modules: tuple[str, ...]
    node: onnx.NodeProto
    constants: tuple[onnx.TensorProto, ...]


@dataclass(frozen=True)
class LayerResult:
    """Times of one distinct layer in milliseconds, and their ratios to FP32.

    ``bound_gmacs`` is what the instruction set's arithmetic alone reached in the same rounds, on all threads;
    None where it has no such loop.
    """

    shape: LayerShape
    modules: tuple[str, ...]
    float_call_ms: float
    float_kernel_ms: float
    binary_call_ms: float
    binary_kernel_ms: float
    call_ratio: float
    best_ratio: float
    quiet: bool
    bound_gmacs: float | None = None

    @property
    def kernel_ratio(self) -> float:
        """FP32 kernel's time by the binary kernel's."""
        return self.float_kernel_ms / self.binary_kernel_ms

    @property
    def lowest_ratio(self) -> float:
        """The ratio that is least favourable to the binary layer."""
        return min(self.call_ratio, self.kernel_ratio, self.best_ratio)

    @property
    def claim(self) -> float | None:
        """The lowest ratio, where the machine was quiet; None where it was not."""
        return self.lowest_ratio if self.quiet else None

    @property
    def gmacs_per_second(self) -> float:
        """Multiply-accumulates of the kernel on taps inside the image, in thousands of millions a second."""
        return self.shape.valid_macs / self.binary_kernel_ms / 1e6

    @property
    def bound_share(self) -> float | None:
        """That rate by the bound, None where there is none."""
        return self.gmacs_per_second / self.bound_gmacs if self.bound_gmacs else None


def find_layers(model: onnx.ModelProto, profile: Profile) -> tuple[Layer, ...]:
    """Return the distinct binary convolutions of ``model``; their input sizes come from a run's ``profile``.

    Raises:
        UsageError: the model has no binary convolution.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {node.node: node.input_shapes for node in profile.nodes if node.binary}
    found: dict[LayerShape, Layer] = {}
    for node in model.graph.node:
        if node.domain != DOMAIN or not node.op_type.startswith(CONV_PREFIX) or node.name not in shapes:
            continue
        shape = _shape(node, shapes[node.name])
        if shape in found:
            first = found[shape]
            found[shape] = Layer(shape, (*first.modules, node.name), first.node, first.constants)
        else:
            own = tuple(constants[name] for name in node.input if name in constants)
            found[shape] = Layer(shape, (node.name,), node, own)
    if not found:
        raise UsageError("The model has no binary convolutions to compare; export a binarized run.")
    return tuple(found.values())


def compare_layers(
    layers: Sequence[Layer],
    threads: int,
    options: MeasureOptions,
    seed: int,
    on_layer: Callable[[], None] | None = None,
) -> tuple[LayerResult, ...]:
    """Time every layer against its FP32 twin, in turns within the same rounds."""
    results = []
    for layer in layers:
        results.append(_compare(layer, threads, options, seed))
        if on_layer is not None:
            on_layer()
    return tuple(results)


def binary_layer_model(layer: Layer) -> onnx.ModelProto:
    """Return a model of ``layer``'s node alone, with its weights; what is computed before it is an input."""
    constants = {tensor.name for tensor in layer.constants}
    batch, channels, height, width = layer.shape.input
    bits = helper.make_tensor_value_info(
        layer.node.input[0], TensorProto.UINT64, [batch, height, width, -(-channels // 64)]
    )
    residual = [batch, *layer.shape.output_size, layer.shape.out_channels]
    others = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, residual)
        for name in layer.node.input[1:]
        if name not in constants
    ]
    kinds = [
        TensorProto.UINT64 if _is_bits(layer.shape.op, k) else TensorProto.FLOAT
        for k in range(len(layer.node.output))
    ]
    outputs = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in zip(layer.node.output, kinds, strict=True)
    ]
    graph = helper.make_graph([layer.node], "layer", [bits, *others], outputs, list(layer.constants))
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def float_layer_model(shape: LayerShape, seed: int) -> onnx.ModelProto:
    """Return a model of an FP32 convolution of ``shape`` with bias and ReLU, which become one node."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal(
        (shape.out_channels, shape.input[1] // shape.group, *shape.kernel), dtype=np.float32
    )
    bias = generator.standard_normal(shape.out_channels, dtype=np.float32)
    conv = helper.make_node(
        "Conv",
        ["x", "weight", "bias"],
        ["y"],
        name="conv",
        kernel_shape=shape.kernel,
        strides=shape.strides,
        pads=shape.pads,
        dilations=shape.dilations,
        group=shape.group,
    )
    graph = helper.make_graph(
        [conv, helper.make_node("Relu", ["y"], ["z"], name="relu")],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape.input)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _is_bits(op: str, output: int) -> bool:
    return op.endswith("ToBits") or (op.endswith("WithBits") and output == 1)


def _shape(node: onnx.NodeProto, inputs: tuple[tuple[int, ...], ...]) -> LayerShape:
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    batch, height, width, _ = inputs[0]
    return LayerShape(
        op=node.op_type,
        input=(batch, attributes["channels"], height, width),
        out_channels=inputs[1][0],
        kernel=tuple(attributes["kernel_shape"]),
        strides=tuple(attributes["strides"]),
        pads=tuple(attributes["pads"]),
        dilations=tuple(attributes["dilations"]),
        group=attributes["group"],
    )


def _compare(layer: Layer, threads: int, options: MeasureOptions, seed: int) -> LayerResult:
    models = {
        EngineKind.FP32: float_layer_model(layer.shape, seed),
        EngineKind.BINARY: binary_layer_model(layer),
    }

    def feeds(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
        return random_inputs(session, 1, seed, bit_channels=layer.shape.input[1])

    with tempfile.TemporaryDirectory() as folder:
        contestants, profilers = [], {}
        for kind, model in models.items():
            path = Path(folder) / f"{kind}.onnx"
            onnx.save(model, str(path))
            session = open_engine(kind, path, threads)
            contestants.append(Contestant(kind, bound_call(session, feeds(session))))
            profilers[kind] = Profiler(kind, path, threads, feeds)
            contestants.append(Contestant(f"{kind} profiled", profilers[kind].call))
        bound = peak_loop(chosen_isa(), PeakKind.BINARY)
        if bound is not None:
            contestants.append(Contestant(_BOUND, bound))
        timed: Measurement = measure(contestants, options)
        profiles = {kind: profiler.finish() for kind, profiler in profilers.items()}
    return LayerResult(
        shape=layer.shape,
        modules=layer.modules,
        float_call_ms=timed.timing(EngineKind.FP32).median_ms,
        float_kernel_ms=kernel_ms(profiles[EngineKind.FP32], _FLOAT_CONVS),
        binary_call_ms=timed.timing(EngineKind.BINARY).median_ms,
        binary_kernel_ms=kernel_ms(profiles[EngineKind.BINARY], (layer.shape.op,)),
        call_ratio=timed.ratio(EngineKind.FP32, EngineKind.BINARY),
        best_ratio=timed.timing(EngineKind.FP32).min_ms / timed.timing(EngineKind.BINARY).min_ms,
        quiet=timed.only_quiet and timed.other_load is not None,
        bound_gmacs=threads * bound() / timed.timing(_BOUND).min_ms / 1e6 if bound is not None else None,
    )
