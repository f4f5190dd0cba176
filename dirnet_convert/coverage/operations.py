"""What a network computes with weights, seen while it runs: its convolutions and matrix products in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

_ATEN = torch.ops.aten
_CONVOLUTION = _ATEN.convolution.default
_PRODUCTS = {
    _ATEN.addmm.default,
    _ATEN.baddbmm.default,
    _ATEN.bmm.default,
    _ATEN.linear.default,
    _ATEN.mm.default,
}


class _Recorder(TorchDispatchMode):
    """Notes for each operation with weights whether it is an inner convolution, as far as is known when it
    runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: list[bool] = []
        # Values that an operation with weights has had a part in.
        self._weighed = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        weighed = any(isinstance(value, Tensor) and value in self._weighed for value in tree_leaves(args))
        if func is _CONVOLUTION or func in _PRODUCTS:
            self.inner.append(func is _CONVOLUTION and args[0] in self._weighed and _mixes(*args))
            weighed = True
        if weighed:
            for value in tree_leaves(output):
                if isinstance(value, Tensor):
                    self._weighed[value] = True
        return output


def _mixes(x: Tensor, weight: Tensor, *options: Any) -> bool:
    transposed = options[4]
    return weight.dim() == 4 and not transposed and weight.shape[1] > 1 and x.shape[2] * x.shape[3] > 1


def is_convolutional(network: nn.Module, image: Tensor) -> bool:
    """Tell whether ``network`` has a convolution worth binarizing for an image (1, C, H, W).

    That is a two-dimensional convolution which does not see the image itself, is not the last of the
    operations with weights, sums over several channels (so is not depthwise), and sees more than one pixel
    (so is no gate).
    """
    recorder = _Recorder()
    with torch.no_grad(), recorder:
        network(image)
    return any(recorder.inner[:-1])
