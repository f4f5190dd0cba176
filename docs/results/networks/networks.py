"""The networks of docs/networks.md, and how long each is trained on the digits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network by its MODEL, and a training that one core does in minutes.

    ``edge`` is that of the digits, pixels; ``images`` how many of the 1,442 training images each epoch sees.
    MobileNet V3's batch norms follow new statistics so slowly that it needs many small batches.
    """

    model: str
    title: str
    edge: int
    images: int
    fp32_epochs: int
    binary_epochs: int
    fp32_lr: float = 0.002
    binary_lr: float = 0.002
    batch: int = 32

    @property
    def key(self) -> str:
        """The name of the network's files."""
        return self.model.removeprefix("timm:")


NETWORKS = (
    Network("resnet18", "ResNet-18", 32, 720, 3, 4),
    Network("resnet34", "ResNet-34", 32, 720, 4, 14),
    Network("resnet50", "ResNet-50", 32, 720, 4, 14),
    Network("vgg_small", "VGG-Small (CIFAR)", 32, 320, 4, 4, batch=16),
    Network("vgg16", "VGG-16", 32, 320, 4, 4, fp32_lr=0.0003, binary_lr=0.0005, batch=16),
    Network("vgg16_bn", "VGG-16 with batch norm", 32, 320, 4, 4, fp32_lr=0.0005, binary_lr=0.0005, batch=16),
    Network("timm:mobilenetv1_100", "MobileNet V1", 32, 1440, 4, 12, binary_lr=0.005),
    Network("mobilenet_v2", "MobileNet V2", 64, 720, 5, 10, binary_lr=0.005),
    Network("mobilenet_v3_large", "MobileNet V3 large", 32, 1440, 5, 8, binary_lr=0.005, batch=16),
    Network("mobilenet_v3_small", "MobileNet V3 small", 32, 1440, 5, 12, binary_lr=0.005, batch=16),
    Network("efficientnet_b0", "EfficientNet-B0", 32, 1440, 4, 8, binary_lr=0.005),
    Network("darts_cifar", "DARTS (CIFAR)", 16, 320, 4, 4, batch=16),
    Network("darts_imagenet", "DARTS (ImageNet)", 64, 720, 4, 10, binary_lr=0.005),
)
