"""What changes around binary convolutions: activations that leave sign() something to say, and shortcuts."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.binarize.layers import BinaryConv2d
from dirnet_convert.convert.policy import is_add
from dirnet_convert.convert.trace import ancestors, module_of, shape_of
from dirnet_convert.recipe import Activation, ConvertOptions, Shortcut

_RELU_FUNCTIONS = {functional.relu, functional.relu6, torch.relu}
_RELU_METHODS = {"relu"}
_NORMS = (nn.BatchNorm2d,)
# What hands values on without new ones: no sign changes on the way.
_TRANSPARENT = (nn.MaxPool2d, nn.Dropout, nn.Dropout2d, nn.Identity)
_TRANSPARENT_FUNCTIONS = {functional.max_pool2d, torch.cat}
CONTAINER = "activations"
NORM_CONTAINER = "norms"


@dataclass(frozen=True)
class Representation:
    """A pair of nodes whose outputs are compared: one in the teacher's graph, one in the student's."""

    teacher: str
    student: str


@dataclass(frozen=True)
class StructureReport:
    """What was changed, by node name, and the representations that teacher and student share."""

    activations: tuple[str, ...]
    shortcuts: tuple[str, ...]
    norms: tuple[str, ...]
    representations: tuple[Representation, ...]


def restructure(student: fx.GraphModule, options: ConvertOptions) -> StructureReport:
    """Change the graph of ``student``, whose convolutions are swapped and whose shapes are known, in
    place."""
    norms = _add_norms(student)
    blocks = _residual_blocks(student)
    shortcuts = _add_shortcuts(student, blocks) if options.shortcut is Shortcut.PER_CONVOLUTION else ()
    representations = _representations(student, blocks, norms)
    renamed: dict[str, str] = {}
    if options.activation is not Activation.KEEP:
        renamed = _replace_activations(student, options.activation)
    student.graph.eliminate_dead_code()
    student.delete_all_unused_submodules()
    student.graph.lint()
    student.recompile()
    pairs = tuple(Representation(name, renamed.get(name, name)) for name in representations)
    return StructureReport(tuple(renamed.values()), shortcuts, norms, pairs)


def _binary(student: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(student, node), BinaryConv2d)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _normalized(student: fx.GraphModule, conv: fx.Node) -> fx.Node:
    """Return the batch norm behind a convolution, or the convolution itself."""
    user = _only_user(conv)
    return user if user is not None and isinstance(module_of(student, user), _NORMS) else conv


def _add_norms(student: fx.GraphModule) -> tuple[str, ...]:
    """Put a batch norm behind each binary convolution that has none, before or after a max pool.

    Signs have lost the weights' size; a batch norm gives each channel its mean and deviation back, and costs
    nothing at inference, where it is one multiply-add with the scale.
    """
    added = []
    for conv in [n for n in student.graph.nodes if _binary(student, n)]:
        user = _only_user(conv)
        if user is not None and isinstance(module_of(student, user), nn.MaxPool2d):
            user = _only_user(user)
        if user is not None and isinstance(module_of(student, user), _NORMS):
            continue
        layer = module_of(student, conv)
        target = f"{NORM_CONTAINER}.{conv.name}"
        student.add_submodule(target, nn.BatchNorm2d(layer.out_channels).train(student.training))
        with student.graph.inserting_after(conv):
            norm = student.graph.call_module(target, (conv,))
        conv.replace_all_uses_with(norm, delete_user_cb=lambda u, norm=norm: u is not norm)
        norm.meta["shape"] = conv.meta.get("shape")
        added.append(norm.name)
    return tuple(added)


@dataclass
class _Block:
    """A residual block: its add, the convolutions on the branch that passes binary ones, and the other
    operand."""

    add: fx.Node
    convs: list[fx.Node]
    shortcut: fx.Node


def _residual_blocks(student: fx.GraphModule) -> list[_Block]:
    blocks = []
    for node in student.graph.nodes:
        if not is_add(node):
            continue
        left, right = node.all_input_nodes
        candidates = [
            _Block(node, convs, other)
            for main, other in ((left, right), (right, left))
            if (convs := _chain(student, main, other))
        ]
        if candidates:
            blocks.append(max(candidates, key=lambda b: len(b.convs)))
    return blocks


def _chain(student: fx.GraphModule, main: fx.Node, other: fx.Node) -> list[fx.Node]:
    """Return the convolutions from where the branch leaves the shortcut to ``main``; none if none is
    binary."""
    stop = {other, *other.all_input_nodes}
    frontier = other
    # A shortcut of its own (downsample, pooling, slices) starts where its chain of single inputs does.
    while len(frontier.all_input_nodes) == 1 and not is_add(frontier):
        frontier = frontier.all_input_nodes[0]
        stop.add(frontier)
        if len(frontier.users) > 1:
            break
    convs = []
    current = main
    while current not in stop:
        if _binary(student, current) or isinstance(module_of(student, current), nn.modules.conv._ConvNd):
            convs.append(current)
        inputs = current.all_input_nodes
        if len(inputs) != 1 or current.op in ("placeholder", "get_attr"):
            return []
        current = inputs[0]
    return convs[::-1] if any(_binary(student, conv) for conv in convs) else []


def _add_shortcuts(student: fx.GraphModule, blocks: list[_Block]) -> tuple[str, ...]:
    """Add around every binary convolution of a residual block (Bi-Real).

    A convolution whose output has its input's shape adds its input; one that changes the shape adds the
    block's own shortcut where that fits, and the block's last add then takes the input of its convolution
    instead.

    Source: Liu et al., "Bi-Real Net", ECCV 2018, section 3.1; the ImageNet networks of IR-Net's public code.
    """
    added = []
    for block in blocks:
        covered = 0
        for conv in [c for c in block.convs[:-1] if _binary(student, c)]:
            out = _normalized(student, conv)
            user = _only_user(out)
            if user is None or is_add(user):
                continue
            fitting = (s for s in (conv.all_input_nodes[0], block.shortcut) if shape_of(s) == shape_of(out))
            source = next(fitting, None)
            if source is None or user in ancestors(source):
                continue
            with student.graph.inserting_after(out):
                add = student.graph.call_function(operator.add, (out, source))
            add.meta["shape"] = out.meta.get("shape")
            user.replace_input_with(out, add)
            added.append(add.name)
            covered += 1
        # The block's shortcut may go only where every convolution has one: else a float path would end.
        last = block.convs[-1]
        own_input = last.all_input_nodes[0]
        complete = _binary(student, last) and 0 < covered == len(block.convs) - 1
        if complete and shape_of(own_input) == shape_of(block.add):
            block.add.replace_input_with(block.shortcut, own_input)
    _sort(student.graph)
    return tuple(added)


def _sort(graph: fx.Graph) -> None:
    """Put the nodes in an order in which each follows its inputs: a shortcut may be used before its old
    place."""
    done: set[fx.Node] = set()
    ordered: list[fx.Node] = []

    def visit(node: fx.Node) -> None:
        stack = [node]
        while stack:
            current = stack[-1]
            waiting = [n for n in current.all_input_nodes if n not in done]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if current not in done:
                done.add(current)
                ordered.append(current)

    nodes = list(graph.nodes)
    for node in nodes:
        visit(node)
    end = nodes[-1]
    for node in ordered:
        if node is not end:
            end.prepend(node)


def _is_relu(student: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(module_of(student, node)) in (nn.ReLU, nn.ReLU6)
    return (node.op == "call_function" and node.target in _RELU_FUNCTIONS) or (
        node.op == "call_method" and node.target in _RELU_METHODS
    )


def _feeds_binary(student: fx.GraphModule, node: fx.Node) -> bool:
    for user in node.users:
        if _binary(student, user):
            return True
        transparent = (
            isinstance(module_of(student, user), _TRANSPARENT) or user.target in _TRANSPARENT_FUNCTIONS
        )
        if transparent and _feeds_binary(student, user):
            return True
    return False


def _ends_block(student: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a ReLU follows a residual add of a binary convolution."""
    source = node.all_input_nodes[0]
    return is_add(source) and any(
        _binary(student, operand) or any(_binary(student, n) for n in operand.all_input_nodes)
        for operand in source.all_input_nodes
    )


def _replace_activations(student: fx.GraphModule, activation: Activation) -> dict[str, str]:
    """Replace each ReLU that feeds a binary convolution or ends a binarized block; return old to new node
    names.

    After a ReLU no input is negative, and sign() with a threshold of zero would always say +1.
    """
    renamed = {}
    for node in [n for n in student.graph.nodes if _is_relu(student, n)]:
        if not (_feeds_binary(student, node) or _ends_block(student, node)):
            continue
        source = node.all_input_nodes[0]
        shape = shape_of(node)
        assert shape is not None
        target = f"{CONTAINER}.{node.name}"
        student.add_submodule(target, _build_activation(activation, shape[1]).train(student.training))
        with student.graph.inserting_after(node):
            new = student.graph.call_module(target, (source,))
        new.meta["shape"] = node.meta.get("shape")
        node.replace_all_uses_with(new)
        student.graph.erase_node(node)
        renamed[node.name] = new.name
    return renamed


def _build_activation(activation: Activation, channels: int) -> nn.Module:
    if activation is Activation.HARDTANH:
        return nn.Hardtanh()
    if activation is Activation.PRELU:
        return nn.PReLU(channels)
    return ShiftedPReLU(channels)


def _representations(student: fx.GraphModule, blocks: list[_Block], norms: tuple[str, ...]) -> list[str]:
    """Return the nodes that end residual blocks, or the activations behind binary convolutions in plain
    networks."""
    if blocks:
        ends = [block.add for block in blocks]
    else:
        ends = [_normalized(student, n) for n in student.graph.nodes if _binary(student, n)]
        # A batch norm that was added has no twin in the teacher; what it normalizes has.
        ends = [e.all_input_nodes[0] if e.name in norms else e for e in ends]
    names = []
    for end in ends:
        user = _only_user(end)
        names.append(user.name if user is not None and _is_relu(student, user) else end.name)
    return names
