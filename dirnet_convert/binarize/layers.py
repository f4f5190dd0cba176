"""Convolution and linear layer with binary weights and binary inputs."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from dirnet_convert.binarize.estimators import Estimator
from dirnet_convert.binarize.imb import balance_and_standardize, power_of_two_scale, standardize_unbalanced
from dirnet_convert.binarize.kernel_conv import Arithmetic, ConvArguments, kernel_conv2d
from dirnet_convert.binarize.padding import Padding, PadMode, pad_with_copies, resolve_padding, same_padding
from dirnet_convert.binarize.sign import hard_sign
from dirnet_convert.recipe import ConvertOptions, EstimatorOptions


class BinaryLayer(nn.Module, abc.ABC):
    """What binary layers share: latent weights, a threshold per input channel, and an estimator for each."""

    channel_axis: ClassVar[int]
    """The axis of the input that has a threshold for each place."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        in_channels: int,
        options: ConvertOptions,
        estimator: EstimatorOptions,
    ) -> None:
        super().__init__()
        self.balance_weights = options.balance_weights
        self.scale_weights = options.scale_weights
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        threshold = weight.new_zeros(in_channels)
        self.threshold = nn.Parameter(threshold, requires_grad=options.learn_threshold)
        self.weight_estimator = Estimator.for_weights(estimator)
        self.input_estimator = Estimator.for_inputs(estimator)
        self.register_buffer("held_weight", None, persistent=False)

    def standardized_weight(self) -> Tensor:
        """Return what sign() sees of the weights: balanced and standardized, or as they are without IMB."""
        return balance_and_standardize(self.weight) if self.balance_weights else self.weight

    @torch.no_grad()
    def binary_weight(self) -> Tensor:
        """Return the weights as exactly -1 and +1, shaped like ``weight``."""
        # A scale is positive, so that signs times their scale have the same signs.
        return hard_sign(self.standardized_weight() if self.held_weight is None else self.held_weight)

    @torch.no_grad()
    def weight_scale(self) -> Tensor:
        """Return the scale (O,) that multiplies each output channel: a power of two, or 1 without scales."""
        if not self.scale_weights:
            return self.weight.new_ones(self.weight.shape[0])
        if self.held_weight is not None:
            return self.held_weight.flatten(1)[:, 0].abs()
        return power_of_two_scale(self.standardized_weight())

    @property
    def _starts_real(self) -> bool:
        # Without balance sign() sees the weights as they are, which are then the real ones, too.
        return self.balance_weights and self.training and self.weight_estimator.fades

    @torch.no_grad()
    def hold_weight(self) -> None:
        """Keep the weights of the evaluation mode, signs times their scale, in ``held_weight``."""
        standardized = self.standardized_weight()
        self.held_weight = self._times_scale(hard_sign(standardized), standardized)

    def _scaled_weight(self) -> Tensor:
        if self.held_weight is not None and not self.training:
            return self.held_weight
        standardized = self.standardized_weight()
        real = standardize_unbalanced(self.weight) if self._starts_real else None
        return self._times_scale(
            self.weight_estimator(standardized, standardized.new_zeros(1), real), standardized
        )

    def _times_scale(self, signs: Tensor, standardized: Tensor) -> Tensor:
        if not self.scale_weights:
            return signs
        # Multiplying by a power of two is exact, so scaling the weights equals scaling the sums, and is
        # cheaper.
        scale = power_of_two_scale(standardized)
        return signs * scale.view(-1, *(1 for _ in range(signs.dim() - 1)))

    @abc.abstractmethod
    def aligned_threshold(self, x: Tensor) -> Tensor:
        """Return the threshold shaped so that it broadcasts against the input ``x``."""

    def binarize_input(self, x: Tensor) -> Tensor:
        """Return +1 where x >= threshold of its channel and -1 elsewhere, shaped like ``x``."""
        return self.input_estimator(x, self.aligned_threshold(x))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Show the estimators the distributions of this layer's weights and of its input ``x``."""
        if self.weight_estimator.needs_quantile:
            self.weight_estimator.observe(self.standardized_weight())
        if self.input_estimator.needs_quantile:
            self.input_estimator.observe(x - self.aligned_threshold(x))

    @torch.no_grad()
    def receiving_shares(self, name: str, x: Tensor) -> LayerShares:
        """Return the shares of this layer's weights and of its input ``x`` that receive gradient."""
        return LayerShares(
            name,
            self.weight_estimator.receiving_share(self.standardized_weight()),
            self.input_estimator.receiving_share(x - self.aligned_threshold(x)),
        )


class BinaryConv2d(BinaryLayer):
    """conv2d(sign(x - threshold), sign(w_std)) * scale + bias, on (N, C, H, W).

    The input is padded with zeros after sign(), so that padded taps count nothing, or with copies of its
    values, as ``padding_mode`` says. ``padding`` is (top, left, bottom, right); with PadMode.SAME it follows
    from the input's size instead. With Arithmetic.KERNELS the sums come from the compiled library, but
    while the layer fades from real values to signs.

    Source: IR-Net's public code (Qin et al., CVPR 2020); the threshold is ReActNet's RSign.
    """

    channel_axis = 1

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: Padding = (0, 0, 0, 0),
        padding_mode: PadMode = PadMode.ZEROS,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        options: ConvertOptions,
        estimator: EstimatorOptions,
    ) -> None:
        super().__init__(weight, bias, weight.shape[1] * groups, options, estimator)
        self.in_channels, self.out_channels = weight.shape[1] * groups, weight.shape[0]
        self.kernel_size = (weight.shape[2], weight.shape[3])
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding, self.padding_mode = padding, padding_mode
        self.arithmetic = Arithmetic.TORCH

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, options: ConvertOptions, estimator: EstimatorOptions) -> BinaryConv2d:
        """Build the binary twin of ``conv`` with copies of its weights and thresholds of zero."""
        return cls(
            conv.weight,
            conv.bias,
            stride=(conv.stride[0], conv.stride[1]),
            padding=resolve_padding(conv),
            padding_mode=PadMode(conv.padding_mode),
            dilation=(conv.dilation[0], conv.dilation[1]),
            groups=conv.groups,
            options=options,
            estimator=estimator,
        ).train(conv.training)

    def aligned_threshold(self, x: Tensor) -> Tensor:
        return self.threshold.view(-1, 1, 1)

    def zero_padding(self, size: tuple[int, int]) -> Padding:
        """Return the (top, left, bottom, right) zeros around an input of ``size`` (H, W)."""
        if self.padding_mode is PadMode.SAME:
            return same_padding(size, self.kernel_size, self.stride, self.dilation)
        return (0, 0, 0, 0) if self.padding_mode.copies else self.padding

    # Named as in nn.Conv2d, which a network may call by name.
    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 3:  # an image alone, as nn.Conv2d takes it
            return self(input.unsqueeze(0)).squeeze(0)
        zeros = self.zero_padding((input.shape[2], input.shape[3]))
        x = pad_with_copies(input, self.padding, self.padding_mode)
        arguments = ConvArguments(self.stride, zeros, self.dilation, self.groups)
        y = self._kernel_sums(x, arguments) if self._has_only_signs else self._torch_sums(x, arguments)
        # Added on its own, so that it is rounded once, as in the exported operator.
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    @property
    def _has_only_signs(self) -> bool:
        fades = self.training and (self.weight_estimator.fades or self.input_estimator.fades)
        return self.arithmetic is Arithmetic.KERNELS and not fades

    def _kernel_sums(self, x: Tensor, arguments: ConvArguments) -> Tensor:
        weight = self._scaled_weight()
        x, arguments = self._gathered(x, arguments)
        return kernel_conv2d(x, self.aligned_threshold(x), weight, self.input_estimator, arguments)

    def _torch_sums(self, x: Tensor, arguments: ConvArguments) -> Tensor:
        signs, arguments = self._gathered(self.binarize_input(x), arguments)
        stride, (top, left, bottom, right), dilation, groups = arguments.of_operator()
        padding = [top, left]
        if (top, left) != (bottom, right):
            signs, padding = functional.pad(signs, (left, right, top, bottom)), [0, 0]
        return functional.conv2d(signs, self._scaled_weight(), None, stride, padding, dilation, groups)

    def _gathered(self, x: Tensor, arguments: ConvArguments) -> tuple[Tensor, ConvArguments]:
        """Return the pixels of ``x`` that a kernel of one tap sees, and the convolution that is left to do.

        PyTorch cannot gather them where channels are few (see finetune.strided_pointwise), and the kernels
        then look at fewer.
        """
        down, right = arguments.stride
        if (down, right) == (1, 1) or self.kernel_size != (1, 1) or any(arguments.padding):
            return x, arguments
        left = ConvArguments((1, 1), arguments.padding, arguments.dilation, arguments.groups)
        return x[:, :, ::down, ::right], left

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, padding_mode='{self.padding_mode}', dilation={self.dilation}, "
            f"groups={self.groups}"
        )


class BinaryLinear(BinaryLayer):
    """(sign(x - threshold) @ sign(w_std)^T) * scale + bias, on (..., K)."""

    channel_axis = -1

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, options: ConvertOptions, estimator: EstimatorOptions
    ) -> None:
        super().__init__(weight, bias, weight.shape[1], options, estimator)
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, options: ConvertOptions, estimator: EstimatorOptions
    ) -> BinaryLinear:
        """Build the binary twin of ``linear`` with copies of its weights and thresholds of zero."""
        layer = cls(linear.weight, linear.bias, options=options, estimator=estimator)
        return layer.train(linear.training)

    def aligned_threshold(self, x: Tensor) -> Tensor:
        return self.threshold

    def forward(self, input: Tensor) -> Tensor:
        y = functional.linear(self.binarize_input(input), self._scaled_weight())
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


@dataclass(frozen=True)
class LayerShares:
    """The shares of a layer's weights and of its inputs that receive gradient."""

    name: str
    weights: float
    inputs: float


def show_inputs(layer: BinaryLayer, to: Callable[[BinaryLayer, Tensor], None]) -> RemovableHandle:
    """Call ``to(layer, x)`` before each forward of ``layer``, whether ``x`` comes by place or by name."""

    def show(module: BinaryLayer, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        to(module, *inputs, *named.values())

    return layer.register_forward_pre_hook(show, with_kwargs=True)


def binary_layers(model: nn.Module) -> list[BinaryLayer]:
    """Return the binary layers of ``model`` in the order of their names' definition."""
    return [module for module in model.modules() if isinstance(module, BinaryLayer)]
