"""A detector in training: losses by name, and what its backbone made of the images on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.ssd import SSD

from dirnet_convert.models.detectors import Target

Losses = dict[str, Tensor]


class _Remembering(nn.Module):
    """A backbone that keeps the representations which it returns beside the feature maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.call: Callable[[Tensor], object] = network.__call__
        self.representations: tuple[Tensor, ...] = ()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        result = self.call(images)
        features, self.representations = result if isinstance(result, tuple) else (result, ())
        return features


class DetectorForward(nn.Module):
    """Images (N, 3, H, W) and targets in, (losses by name, representations) out; for training mode.

    ``backbone`` shares its parameters with that of ``detector``, and may return its representations too.
    """

    def __init__(self, detector: SSD | FasterRCNN, backbone: nn.Module) -> None:
        super().__init__()
        twin = copy.copy(detector)
        # A shallow copy would share the dictionary of children, too.
        twin._modules = dict(detector._modules)
        self._remembering = _Remembering(backbone)
        twin.backbone = self._remembering
        self.detector = twin

    def change_backbone(self, changed: Callable[[nn.Module], nn.Module]) -> None:
        """Put what ``changed`` makes of the backbone, with the same parameters, in its place."""
        network = changed(self._remembering.network)
        self._remembering.network, self._remembering.call = network, network.__call__

    def run_backbone_by(self, changed: Callable[[nn.Module], Callable[[Tensor], object]]) -> None:
        """Run the backbone by what ``changed`` makes of it, with the same parameters."""
        # Its method, since a module itself would become a child of this one.
        self._remembering.call = changed(self._remembering.network).__call__

    def forward(self, images: Tensor, targets: list[Target]) -> tuple[Losses, tuple[Tensor, ...]]:
        """Return the losses of a batch and the backbone's representations."""
        losses = self.detector(images, targets)
        representations, self._remembering.representations = self._remembering.representations, ()
        return losses, representations
