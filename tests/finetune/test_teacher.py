from __future__ import annotations

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
