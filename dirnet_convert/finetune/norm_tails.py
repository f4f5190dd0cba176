"""The tails of layers as a training on processors computes them: batch norm, residual and activation at once.

Compiled as they are, they take a quarter of a step: their sums and their bfloat16 are slow in what the
compiler writes. The kernels read each tensor as rarely as can be.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from dirnet_convert.binarize.activations import ShiftedPReLU
from dirnet_convert.binarize.fading import FadingNetwork
from dirnet_convert.graph import module_of
from dirnet_convert.runtime.torch_memory import TYPES
from dirnet_convert.runtime.torch_norm_tail import TailActivation, TailInputs, norm_tail

_ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass(frozen=True)
class _Ending:
    """An activation as the operator takes it."""

    kind: TailActivation
    shift: Tensor | None = None
    slope: Tensor | None = None
    clip_min: float = 0.0
    clip_max: float = 0.0


class NormTail(nn.Module):
    """activation(norm(x) + residual), with modules that are also others'; either may be absent, not both."""

    def __init__(self, norm: nn.BatchNorm2d, activation: nn.Module | None) -> None:
        super().__init__()
        self.norm, self.activation = norm, activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        norm, count = self.norm, x.shape[0] * x.shape[2:].numel()
        like_x = residual is None or (residual.shape == x.shape and residual.dtype == x.dtype)
        taken = x.dtype in TYPES and norm.weight.dtype == torch.float32 and like_x
        if not norm.training or count < 2 or not taken:
            return self._apart(x, residual)
        ending = _ending(self.activation, x.shape[1])
        y, mean, variance = norm_tail(
            *TailInputs(
                *(x, residual, norm.weight, norm.bias, ending.shift, ending.slope),
                *(norm.eps, int(ending.kind), ending.clip_min, ending.clip_max),
            )
        )
        self._track(mean, variance, count)
        return y

    def _apart(self, x: Tensor, residual: Tensor | None) -> Tensor:
        v = self.norm(x) if residual is None else self.norm(x) + residual
        return v if self.activation is None else self.activation(v)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        # As BatchNorm2d does: the variance of the population, estimated from `count` of its values.
        norm, share = self.norm, self.norm.momentum
        norm.num_batches_tracked.add_(1)
        norm.running_mean.mul_(1.0 - share).add_(mean, alpha=share)
        norm.running_var.mul_(1.0 - share).add_(variance, alpha=share * count / (count - 1))


def with_norm_tails(network: nn.Module) -> nn.Module:
    """Return ``network``, whose parameters it shares, with each batch norm in front of a sum, an activation,
    or both in that order, computed as one; a network without a graph is returned as it is.

    A FadingNetwork is itself changed.
    """
    if isinstance(network, FadingNetwork):
        network.change(with_norm_tails)
    if not isinstance(network, fx.GraphModule):
        return network
    joined = fx.GraphModule(network, copy.deepcopy(network.graph))
    for number, norm_node in enumerate(list(joined.graph.nodes)):
        norm = module_of(joined, norm_node)
        if type(norm) is not nn.BatchNorm2d or not norm.affine or norm.momentum is None:
            continue
        # Without running statistics there are none to go on with.
        if norm.running_mean is None:
            continue
        replaced, inputs = [norm_node], list(norm_node.all_input_nodes)
        addition = _only_user(norm_node)
        residual = None if addition is None else _other_summand(addition, norm_node)
        if residual is not None:
            replaced.append(addition)
            inputs.append(residual)
        following = _only_user(replaced[-1])
        activation = None if following is None else module_of(joined, following)
        if _is_ending(activation):
            replaced.append(following)
        elif residual is None:
            continue
        else:
            activation = None
        name = f"norm_tail_{number}"
        joined.add_submodule(name, NormTail(norm, activation))
        with joined.graph.inserting_after(replaced[-1]):
            tail_node = joined.graph.call_module(name, tuple(inputs))
        replaced[-1].replace_all_uses_with(tail_node)
        for node in reversed(replaced):
            joined.graph.erase_node(node)
    joined.delete_all_unused_submodules()
    joined.recompile()
    return joined.train(network.training)


def _ending(activation: nn.Module | None, channels: int) -> _Ending:
    if activation is None:
        return _Ending(TailActivation.NONE)
    if isinstance(activation, ShiftedPReLU):
        return _Ending(TailActivation.PRELU, activation.shift, activation.weight)
    if isinstance(activation, nn.PReLU):
        return _Ending(TailActivation.PRELU, slope=activation.weight.expand(channels))
    if isinstance(activation, nn.ReLU):
        return _Ending(TailActivation.CLIP, clip_min=0.0, clip_max=float("inf"))
    return _Ending(TailActivation.CLIP, clip_min=activation.min_val, clip_max=activation.max_val)


def _is_ending(activation: nn.Module | None) -> bool:
    # A subclass may compute something else; ReLU6 is Hardtanh with other bounds.
    return type(activation) in (ShiftedPReLU, nn.PReLU, nn.ReLU, nn.Hardtanh, nn.ReLU6)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _other_summand(addition: fx.Node, summand: fx.Node) -> fx.Node | None:
    """Return what ``addition`` adds to ``summand``, or None where it is no sum of two tensors."""
    if addition.op != "call_function" or addition.target not in _ADDITIONS or addition.kwargs:
        return None
    others = [value for value in addition.args if value is not summand]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None
