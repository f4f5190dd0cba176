"""What changes around binary layers: borders, batch norms, shortcuts, and activations."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLinear
from dirnet_convert.binarize.norms import LastAxisBatchNorm
from dirnet_convert.binarize.padding import PadMode
from dirnet_convert.convert.activation_swap import is_relu, replace_activations
from dirnet_convert.convert.blocks import Block, is_binary, only_user, residual_blocks
from dirnet_convert.convert.facts import is_add
from dirnet_convert.convert.originals import note_operand, note_original, rename_operands
from dirnet_convert.convert.trace import ancestors, shape_of
from dirnet_convert.graph import free_target, module_of
from dirnet_convert.recipe import Activation, ConvertOptions, Shortcut

# What gives each channel its size back.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_NORM_CONTAINER = "norms"
_CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate}


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
    """Change the graph of ``student``, whose layers are swapped and whose shapes are known, in place."""
    _absorb_pads(student)
    _thaw_norms(student)
    norms = _add_norms(student)
    blocks = residual_blocks(student)
    shortcuts = _add_shortcuts(student, blocks) if options.shortcut is Shortcut.PER_CONVOLUTION else ()
    representations = _representations(student, blocks, norms)
    renamed: dict[str, str] = {}
    if options.activation is not Activation.KEEP:
        adds = {block.add.name for block in blocks} | set(shortcuts)
        renamed = replace_activations(student, options.activation, adds)
        rename_operands(student.graph, renamed)
    student.graph.eliminate_dead_code()
    student.delete_all_unused_submodules()
    student.graph.lint()
    student.recompile()
    pairs = tuple(Representation(name, renamed.get(name, name)) for name in representations)
    return StructureReport(tuple(renamed.values()), shortcuts, norms, pairs)


def _binary_nodes(student: fx.GraphModule) -> list[fx.Node]:
    return [n for n in student.graph.nodes if is_binary(student, n)]


def _absorb_pads(student: fx.GraphModule) -> None:
    """Let each binary convolution pad by itself where zeros were put around its input before.

    The zeros would become signs otherwise; a padded tap counts nothing.
    """
    for conv in _binary_nodes(student):
        layer, pad = module_of(student, conv), conv.all_input_nodes[0]
        zeros = _zeros(student, pad)
        once = sum(n.target == conv.target for n in student.graph.nodes) == 1
        if not isinstance(layer, BinaryConv2d) or zeros is None or not once:
            continue
        if layer.padding_mode is not PadMode.ZEROS:
            continue
        left, right, top, bottom = zeros
        own = layer.padding
        layer.padding = (own[0] + top, own[1] + left, own[2] + bottom, own[3] + right)
        conv.replace_input_with(pad, pad.all_input_nodes[0])


def _zeros(student: fx.GraphModule, node: fx.Node) -> tuple[int, int, int, int] | None:
    """Return the zeros (left, right, top, bottom) that a node puts around images, or None."""
    layer = module_of(student, node)
    if isinstance(layer, nn.ZeroPad2d | nn.ConstantPad2d):
        pad, mode, value = layer.padding, "constant", layer.value
    elif node.op == "call_function" and getattr(node.target, "__name__", "") == functional.pad.__name__:
        names = ("input", "pad", "mode", "value")
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        pad, mode, value = given["pad"], given.get("mode", "constant"), given.get("value")
    else:
        return None
    amounts = tuple(pad) if isinstance(pad, tuple | list) else ()
    known = all(isinstance(amount, int) and amount >= 0 for amount in amounts)
    # Without their amounts, two of the four stand for the width alone.
    amounts = (*amounts, 0, 0) if len(amounts) == 2 else amounts
    image = shape_of(node) is not None and len(shape_of(node)) == 4
    return amounts if known and image and len(amounts) == 4 and mode == "constant" and not value else None


def _thaw_norms(student: fx.GraphModule) -> None:
    """Make each frozen batch norm behind a binary convolution one that measures: its statistics were those
    of another convolution."""
    for conv in _binary_nodes(student):
        user = only_user(conv)
        frozen = module_of(student, user) if user is not None else None
        if isinstance(frozen, FrozenBatchNorm2d):
            norm = nn.BatchNorm2d(frozen.weight.numel(), eps=frozen.eps).train(student.training)
            norm.load_state_dict(frozen.state_dict(), strict=False)
            student.set_submodule(str(user.target), norm)


def _normalized(student: fx.GraphModule, layer: fx.Node) -> fx.Node:
    """Return the norm behind a layer, or the layer itself."""
    user = only_user(layer)
    return user if user is not None and isinstance(module_of(student, user), _NORMS) else layer


def _add_norms(student: fx.GraphModule) -> tuple[str, ...]:
    """Put a batch norm behind each binary layer that has no norm, before or after a max pool or a join.

    Signs have lost the weights' size; a batch norm gives each channel its mean and deviation back, and costs
    nothing at inference, where it is one multiply-add with the scale.
    """
    added = []
    for node in _binary_nodes(student):
        user = only_user(node)
        while user is not None and _keeps_channels_apart(student, user):
            user = only_user(user)
        if user is not None and isinstance(module_of(student, user), _NORMS):
            continue
        target = free_target(student, _NORM_CONTAINER, node.name)
        student.add_submodule(target, _norm_for(module_of(student, node)).train(student.training))
        with student.graph.inserting_after(node):
            norm = student.graph.call_module(target, (node,))
        node.replace_all_uses_with(norm, delete_user_cb=lambda u, norm=norm: u is not norm)
        norm.meta["shape"] = shape_of(node)
        added.append(norm.name)
    return tuple(added)


def _keeps_channels_apart(student: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a norm behind ``node`` does for each channel what one before it would do."""
    return isinstance(module_of(student, node), nn.MaxPool2d) or node.target in _CONCATENATIONS


def _norm_for(layer: nn.Module | None) -> nn.Module:
    if isinstance(layer, BinaryLinear):
        return LastAxisBatchNorm(layer.out_features)
    assert isinstance(layer, BinaryConv2d)
    return nn.BatchNorm2d(layer.out_channels)


def _add_shortcuts(student: fx.GraphModule, blocks: list[Block]) -> tuple[str, ...]:
    """Add around every binary layer of a residual block (Bi-Real).

    A layer whose output has its input's shape adds its input; a convolution that changes the shape adds the
    block's own shortcut where that fits, and the block's last add then takes the input of its convolution
    instead.

    Source: Liu et al., "Bi-Real Net", ECCV 2018, section 3.1; the ImageNet networks of IR-Net's public code.
    """
    added = []
    for block in blocks:
        covered = 0
        for node in [n for n in block.layers[:-1] if is_binary(student, n)]:
            out = _normalized(student, node)
            user = only_user(out)
            if user is None or is_add(user):
                continue
            # Behind a linear layer channels lie last, and equal sizes are no equal layout.
            own_only = isinstance(module_of(student, node), BinaryLinear)
            sources = (node.all_input_nodes[0], *(() if own_only else (block.shortcut,)))
            source = next((s for s in sources if shape_of(s) == shape_of(out)), None)
            if source is None or user in ancestors(source):
                continue
            with student.graph.inserting_after(out):
                add = student.graph.call_function(operator.add, (out, source))
            add.meta["shape"] = shape_of(out)
            note_original(add, out)
            user.replace_input_with(out, add)
            added.append(add.name)
            covered += 1
        # The block's shortcut may go only where every convolution has one: else a float path would end.
        if not block.whole or not 0 < covered == len(block.layers) - 1:
            continue
        last = block.layers[-1]
        own_input = last.all_input_nodes[0]
        same_shape = shape_of(own_input) == shape_of(block.add)
        if same_shape and isinstance(module_of(student, last), BinaryConv2d):
            block.add.replace_input_with(block.shortcut, own_input)
            note_operand(block.add, block.shortcut, own_input)
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


def _representations(student: fx.GraphModule, blocks: list[Block], norms: tuple[str, ...]) -> list[str]:
    """Return the nodes that end residual blocks; else those that join branches; else those behind binary
    layers."""
    ends = [block.add for block in blocks] or _joins(student)
    if not ends:
        ends = [_normalized(student, n) for n in _binary_nodes(student)]
        # A batch norm that was added has no twin in the teacher; what it normalizes has.
        ends = [e.all_input_nodes[0] if e.name in norms else e for e in ends]
    names = []
    for end in ends:
        user = only_user(end)
        names.append(user.name if user is not None and is_relu(student, user) else end.name)
    return names


def _joins(student: fx.GraphModule) -> list[fx.Node]:
    """Return the concatenations of feature maps behind binary layers that no other one contains."""
    binary = set(_binary_nodes(student))
    joins = {
        node: set(node.all_input_nodes)
        for node in student.graph.nodes
        if node.target in _CONCATENATIONS and len(shape_of(node) or ()) == 4 and binary & ancestors(node)
    }
    return [node for node, own in joins.items() if not any(own < other for other in joins.values())]
