"""Stand-ins for binary layers that write the operators of ``ai.dirnet`` into an exported graph."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dirnet_convert.binarize.held_weights import held_weights
from dirnet_convert.binarize.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from dirnet_convert.binarize.padding import Padding, PadMode, pad_with_copies, same_padding
from dirnet_convert.onnx_export.labels import LAYER_KEY
from dirnet_convert.onnx_export.operators import DOMAIN, OPERATOR_VERSION, pack_bits, word_count


class _ExportLayer(nn.Module):
    """What both stand-ins share: packed weights, scale, bias and threshold of a trained layer."""

    def __init__(self, layer: BinaryLayer, channels: int, weight_last: Tensor, path: str) -> None:
        super().__init__()
        self.path, self.channels = path, channels
        words = torch.from_numpy(pack_bits(weight_last.cpu().numpy()).view("int64"))
        # torch.export carries little of uint64, so the words travel as int64 and are retyped in the IR.
        self.register_buffer("packed", words)
        self.register_buffer("scale", layer.weight_scale().detach().float().cpu().clone())
        bias = torch.zeros(weight_last.shape[0]) if layer.bias is None else layer.bias.detach().float().cpu()
        self.register_buffer("bias", bias.clone())
        self.register_buffer("threshold", layer.threshold.detach().float().cpu().clone())
        # A network may read a layer's weight, if only to learn its device; unread, it leaves no trace.
        self.weight = layer.weight.detach().float().cpu()

    def _emit(
        self, name: str, inputs: tuple[Tensor, ...], attributes: dict, dtype: torch.dtype, shape: tuple
    ) -> Tensor:
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{name}",
            inputs,
            attributes,
            dtype=dtype,
            shape=shape,
            version=OPERATOR_VERSION,
            metadata_props={LAYER_KEY: self.path},
        )

    def _binarize(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], word_count(self.channels))
        return self._emit("Binarize", (x, self.threshold), {"channels": self.channels}, torch.uint64, shape)


class ExportConv2d(_ExportLayer):
    """Binarize and BinaryConv2d in NHWC between two transposes, for x (N, C, H, W)."""

    def __init__(self, layer: BinaryConv2d, path: str) -> None:
        super().__init__(
            layer, layer.in_channels, layer.binary_weight().permute(0, 2, 3, 1).contiguous(), path
        )
        self.out_channels = layer.out_channels
        self.padding, self.padding_mode = layer.padding, layer.padding_mode
        self.attributes = {
            "channels": layer.in_channels,
            "kernel_shape": list(layer.kernel_size),
            "strides": list(layer.stride),
            "dilations": list(layer.dilation),
            "group": layer.groups,
        }

    def _pads(self, height: int, width: int) -> Padding:
        a = self.attributes
        if self.padding_mode is PadMode.SAME:
            return same_padding((height, width), a["kernel_shape"], a["strides"], a["dilations"])
        return (0, 0, 0, 0) if self.padding_mode.copies else self.padding

    def _output_size(self, padded: int, axis: int) -> int:
        a = self.attributes
        window = a["dilations"][axis] * (a["kernel_shape"][axis] - 1) + 1
        return (padded - window) // a["strides"][axis] + 1

    def forward(self, x: Tensor) -> Tensor:
        x = pad_with_copies(x, self.padding, self.padding_mode)
        bits = self._binarize(x.permute(0, 2, 3, 1))
        batch, _, height, width = x.shape
        top, left, bottom, right = self._pads(height, width)
        shape = (
            batch,
            self._output_size(height + top + bottom, 0),
            self._output_size(width + left + right, 1),
            self.out_channels,
        )
        attributes = {**self.attributes, "pads": [top, left, bottom, right]}
        inputs = (bits, self.packed, self.scale, self.bias)
        y = self._emit("BinaryConv2d", inputs, attributes, torch.float32, shape)
        # Contiguous, as a convolution returns it: pooling takes another way on other strides.
        return y.permute(0, 3, 1, 2).contiguous()


class ExportLinear(_ExportLayer):
    """Binarize and BinaryGemm, for x (..., K)."""

    def __init__(self, layer: BinaryLinear, path: str) -> None:
        super().__init__(layer, layer.in_features, layer.binary_weight(), path)
        self.out_features = layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        inputs = (self._binarize(x), self.packed, self.scale, self.bias)
        shape = (*x.shape[:-1], self.out_features)
        return self._emit("BinaryGemm", inputs, {"channels": self.channels}, torch.float32, shape)


def export_copy(student: nn.Module) -> nn.Module:
    """Return a copy of ``student`` on the CPU, in eval mode, with a stand-in for every binary layer."""
    network = copy.deepcopy(student).cpu().eval()
    stand_ins: dict[nn.Module, nn.Module] = {}
    # A module that is called in several places has several paths, and all of them get the same stand-in.
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, BinaryLayer) and module not in stand_ins:
            kind = ExportConv2d if isinstance(module, BinaryConv2d) else ExportLinear
            with held_weights(module):
                stand_ins[module] = kind(module, path)
        if module in stand_ins:
            network.set_submodule(path, stand_ins[module])
    return network
