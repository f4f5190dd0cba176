"""What a rewrite adds has a name of its own, whatever a network calls its parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dirnet_convert.convert.binarize_network import Binarized

Convert = Callable[..., Binarized]


def _images(generator: torch.Generator, count: int = 4, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=generator)


def test_a_name_that_is_taken_does_no_harm(convert: Convert, generator: torch.Generator) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activations = nn.ReLU(inplace=True)
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
            self.convs = nn.ModuleList(nn.Conv2d(3 if k == 0 else 4, 4, 3) for k in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for conv, norm in zip(self.convs, self.norms, strict=False):
                x = self.activations(norm(conv(x)))
            return self.activations(self.convs[2](x)).mean((2, 3))

    built = convert(Named(), binarize=("convs.2",))
    assert len(built.structure.norms) == 1 and len(built.structure.activations) == 2
    assert built.student(_images(generator)).shape == (4, 4)
    assert len(built.structure.representations) == 2


def test_modules_of_the_networks_own_are_not_replaced(
    convert: Convert, generator: torch.Generator, randomized: Callable[[nn.Module], nn.Module]
) -> None:
    class Named(nn.Module):
        """Its norms stand behind ReLUs, by the names that added norms would have."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
            self.norms = nn.ModuleDict({"conv1": nn.BatchNorm2d(4), "conv2": nn.BatchNorm2d(4)})
            self.activations = nn.ModuleDict({"relu": nn.GELU()})

        def forward(self, x: Tensor) -> Tensor:
            x = self.norms["conv1"](F.relu(self.conv1(F.relu(self.stem(x)))))
            return self.activations["relu"](self.norms["conv2"](F.relu(self.conv2(x)))).mean((2, 3))

    network = randomized(Named())
    built = convert(network, binarize=("conv*",))
    assert len(built.structure.norms) == 2 and len(built.structure.activations) == 1
    for name in ("conv1", "conv2"):
        assert torch.equal(built.student.get_submodule(f"norms.{name}").weight, network.norms[name].weight)
    assert type(built.student.get_submodule("activations.relu")) is nn.GELU
    targets = [node.target for node in built.student.graph.nodes if node.op == "call_module"]
    assert len(targets) == len(set(targets)), targets
    assert built.student(_images(generator)).shape == (4, 4)


def test_a_parameter_has_the_name_of_a_container(convert: Convert, generator: torch.Generator) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
            self.norms = nn.Parameter(torch.rand(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv1(self.stem(x)) * self.norms)
            return self.conv2(x).mean((2, 3))

    built = convert(Named(), binarize=("conv*",))
    assert len(built.structure.norms) == 2
    assert built.student(_images(generator)).shape == (4, 4)
