"""Activations in front of binary layers that leave sign() something to say."""

from __future__ import annotations

from collections.abc import Collection

import torch
from timm.layers import BlurPool2d
from torch import fx, nn
from torch.nn import functional

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.binarize.layers import BinaryLinear
from dirnet_convert.convert.blocks import Course, call_name, is_binary
from dirnet_convert.convert.originals import note_original
from dirnet_convert.convert.trace import shape_of
from dirnet_convert.graph import free_target, module_of
from dirnet_convert.recipe import Activation

_RELU_FUNCTIONS = {functional.relu, functional.relu6, torch.relu}
_RELU_METHODS = {"relu"}
# What hands values on, picks, joins, moves, sums or averages them: what was never negative stays so.
_TRANSPARENT = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.dropout._DropoutNd,
    nn.modules.padding._ConstantPadNd,
    *(
        BlurPool2d,
        nn.Identity,
        nn.ChannelShuffle,
        nn.PixelShuffle,
        nn.PixelUnshuffle,
        nn.Upsample,
        nn.Flatten,
    ),
)
_TRANSPARENT_NAMES = {
    *(
        "cat",
        "concat",
        "concatenate",
        "stack",
        "sum",
        "max_pool2d",
        "avg_pool2d",
        "interpolate",
        "pad",
        "channel_shuffle",
    ),
    *("view", "reshape", "flatten", "transpose", "permute", "contiguous", "clone", "roll", "flip"),
    *("chunk", "split", "tensor_split", "unbind", "getitem", "narrow", "squeeze", "unsqueeze"),
}
ACTIVATIONS = "activations"


def is_relu(student: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node is a ReLU, as a module, a function or a method."""
    if node.op == "call_module":
        return type(module_of(student, node)) in (nn.ReLU, nn.ReLU6)
    return (node.op == "call_function" and node.target in _RELU_FUNCTIONS) or (
        node.op == "call_method" and node.target in _RELU_METHODS
    )


def replace_activations(
    student: fx.GraphModule, activation: Activation, adds: Collection[str]
) -> dict[str, str]:
    """Replace each ReLU that feeds a binary layer or follows one of the ``adds`` around binary layers.

    Returns old to new node names.

    After a ReLU no input is negative, and sign() with a threshold of zero would always say +1.
    """
    course = Course(student.graph)
    renamed = {}
    for node in [n for n in student.graph.nodes if is_relu(student, n)]:
        fed = _fed_layers(student, node, course)
        source = node.all_input_nodes[0]
        if not fed and source.name not in adds:
            continue
        target = free_target(student, ACTIVATIONS, node.name)
        new_module = _build(activation, _channels(node, fed))
        student.add_submodule(target, new_module.train(student.training))
        with student.graph.inserting_after(node):
            new = student.graph.call_module(target, (source,))
        new.meta["shape"] = shape_of(node)
        note_original(new, _as_module(student, node))
        node.replace_all_uses_with(new)
        student.graph.erase_node(node)
        renamed[node.name] = new.name
    return renamed


def _as_module(student: fx.GraphModule, relu: fx.Node) -> nn.Module:
    clipped = relu.target is functional.relu6 or isinstance(module_of(student, relu), nn.ReLU6)
    return nn.ReLU6() if clipped else nn.ReLU()


def _fed_layers(student: fx.GraphModule, node: fx.Node, course: Course) -> list[nn.Module | None]:
    """Return the binary layers that read the values of ``node``."""
    fed, seen, stack = [], {node}, [node]
    while stack:
        current = stack.pop()
        for user in current.users:
            if is_binary(student, user):
                fed.append(module_of(student, user))
            elif user not in seen and (_is_transparent(student, user) or _is_gated(user, current, course)):
                seen.add(user)
                stack.append(user)
    return fed


def _is_transparent(student: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(module_of(student, node), _TRANSPARENT)
    return node.op in ("call_function", "call_method") and call_name(node) in _TRANSPARENT_NAMES


def _is_gated(product: fx.Node, value: fx.Node, course: Course) -> bool:
    """Tell whether ``product`` is ``value`` times a gate that was computed from it."""
    return len(product.all_input_nodes) > 1 and course.hands_on(product) and course.before(product) is value


def _channels(node: fx.Node, fed: list[nn.Module | None]) -> int:
    """Return how many slopes an activation in place of ``node`` has: one, where channels lie last."""
    shape = shape_of(node)
    assert shape is not None
    last = len(shape) > 2 and (len(shape) != 4 or any(isinstance(layer, BinaryLinear) for layer in fed))
    return 1 if last else shape[1]


def _build(activation: Activation, channels: int) -> nn.Module:
    if activation is Activation.HARDTANH:
        return nn.Hardtanh()
    if activation is Activation.PRELU:
        return nn.PReLU(channels)
    return ShiftedPReLU(channels)
