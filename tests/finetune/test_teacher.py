from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from dirnet_convert.finetune.teacher import with_folded_norms

SEED = 7


class _Shared(nn.Module):
    """A convolution with a norm behind it, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.twice, self.twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self.stem_norm(self.stem(x))
        inner = self.twice(x)
        return self.twice_norm(self.twice(self.twice_norm(inner).relu())), (inner,)


def _network() -> nn.Module:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    network = _Shared()
    for _ in range(3):
        network(torch.randn(8, 3, 6, 6) + 1.0)
    return network.eval()


def test_norms_become_part_of_their_convolutions() -> None:
    network = fx.symbolic_trace(_network())
    folded = with_folded_norms(network)
    x = torch.randn(2, 3, 6, 6)
    for ours, theirs in zip(folded(x), network(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    names = {name for name, _ in folded.named_modules() if name}
    assert names == {"stem", "twice", "twice_norm"}
    assert "stem_norm" in dict(network.named_modules()) and network.stem.bias is None


def test_network_without_a_graph_is_itself() -> None:
    network = _network()
    assert with_folded_norms(network) is network


class _Computed(nn.Module):
    """A convolution whose weight is computed at each call, and a norm that is given its input by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
        self.last, self.last_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_norm(input=self.last(self.norm(self.conv(x))))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_computed_weights_stay_and_inputs_may_be_named() -> None:
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    network = fx.symbolic_trace(_Computed().eval()).requires_grad_(False)
    x = torch.randn(2, 3, 6, 6)
    expected = network(x)
    folded = with_folded_norms(network)
    torch.testing.assert_close(folded(x), expected)
    assert {name for name, _ in folded.named_modules() if name} == {"conv", "norm", "last"}
