"""The networks of DARTS have the papers' sizes, and each cell computes what its genotype says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dirnet_convert.convert.binarize_network import plan_network
from dirnet_convert.convert.policy import Decision
from dirnet_convert.models.catalog import find_model
from dirnet_convert.models.darts import DartsCifar, DartsImageNet, darts_cifar, darts_imagenet
from dirnet_convert.models.darts_cell import Cell, FactorizedReduce
from dirnet_convert.models.darts_genotype import SECOND_ORDER, CellPlan, Edge, Operation
from dirnet_convert.recipe import ConvertOptions


# Liu et al., ICLR 2019, tables 1 and 3: 3.3 and 4.7 million parameters; to the last one, those that the
# authors' public code prints.
@pytest.mark.parametrize(("build", "parameters"), [(darts_cifar, 3349342), (darts_imagenet, 4718752)])
def test_the_networks_have_the_papers_size(build: object, parameters: int) -> None:
    assert sum(p.numel() for p in build().parameters()) == parameters


def test_multiply_adds_on_imagenet_are_those_that_the_public_code_has() -> None:
    network = darts_imagenet().eval()
    plan, _ = plan_network(network, torch.zeros(1, 3, 224, 224), ConvertOptions())
    layers = sum(layer.macs for layer in plan)
    # The paper says 574 million, and its code does not count. A public counter says 544.6 million of that
    # code, with two for each value of a batch norm and one for each of a ReLU; what differs then are pools.
    others = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal others
        others += output.numel() * (2 if isinstance(module, nn.BatchNorm2d) else 1)

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.ReLU):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, 224, 224))
    assert layers / 1e6 == pytest.approx(529.9, abs=0.05)
    assert (layers + others) / 1e6 == pytest.approx(544.6, abs=1.5)


@pytest.mark.parametrize(
    ("build", "edge", "binary", "depthwise"), [(darts_cifar, 16, 240, 198), (darts_imagenet, 32, 165, 132)]
)
def test_all_but_stem_depthwise_and_classifier_is_binarized(
    build: object, edge: int, binary: int, depthwise: int
) -> None:
    plan, _ = plan_network(build().eval(), torch.zeros(1, 3, edge, edge), ConvertOptions())
    assert sum(layer.decision is Decision.BINARIZE for layer in plan) == binary
    assert sum("depthwise" in layer.reason for layer in plan) == depthwise
    assert len(plan) == binary + depthwise + 2


def test_pointwise_convolutions_are_binarized_and_depthwise_ones_are_not() -> None:
    network = DartsCifar(cells=3, channels=8)
    plan, graph = plan_network(network.eval(), torch.zeros(1, 3, 32, 32), ConvertOptions())
    assert isinstance(graph, torch.fx.GraphModule)
    layers = dict(network.named_modules())
    inner = [p for p in plan if isinstance(layers[p.name], nn.Conv2d) and p.name != "stem.0"]
    for layer in inner:
        depthwise = layers[layer.name].groups > 1
        assert layer.decision is (Decision.KEEP if depthwise else Decision.BINARIZE)
        assert ("depthwise" in layer.reason) is depthwise
    assert {layer.decision for layer in inner} == {Decision.KEEP, Decision.BINARIZE}


def test_a_cell_sums_the_edges_of_its_genotype(generator: torch.Generator) -> None:
    plan = CellPlan(
        nodes=(
            (Edge(Operation.SKIP, 0), Edge(Operation.SKIP, 1)),
            (Edge(Operation.MAX_POOL_3X3, 2), Edge(Operation.SKIP, 0)),
        ),
        outputs=(2, 3),
    )
    cell = Cell(plan, (5, 7), channels=4, stride=1, halved_before=False).eval()
    before = torch.randn(2, 5, 6, 6, generator=generator)
    last = torch.randn(2, 7, 6, 6, generator=generator)
    with torch.no_grad():
        first, second = cell.input0(before), cell.input1(last)
        node = first + second
        pooled = torch.nn.functional.max_pool2d(node, 3, stride=1, padding=1) + first
        assert torch.equal(cell(before, last), torch.cat([node, pooled], dim=1))
    assert cell.out_channels == 8


def test_a_reduction_cell_halves_its_inputs_but_not_its_own_nodes() -> None:
    cell = Cell(SECOND_ORDER.reduction, (6, 6), channels=4, stride=2, halved_before=True)
    assert cell(torch.zeros(1, 6, 32, 32), torch.zeros(1, 6, 16, 16)).shape == (1, 16, 8, 8)
    # Skips between a cell's own nodes stay what they are.
    assert sum(isinstance(m, nn.Identity) for m in cell.nodes.modules()) == 3


def test_factorized_reduce_sees_even_and_odd_pixels(generator: torch.Generator) -> None:
    reduce = FactorizedReduce(1, 2).eval()
    nn.init.ones_(reduce.even.weight)
    nn.init.ones_(reduce.odd.weight)
    x = torch.rand(1, 1, 4, 4, generator=generator)
    with torch.no_grad():
        y = reduce(x) * (1 + reduce.norm.eps) ** 0.5
    assert torch.allclose(y[0, 0], x[0, 0, ::2, ::2])
    assert torch.allclose(y[0, 1], x[0, 0, 1::2, 1::2])


@pytest.mark.parametrize(
    ("network", "edge"),
    [(DartsCifar(7, cells=5, channels=4), 32), (DartsImageNet(7, cells=5, channels=8), 64)],
)
def test_logits_and_gradients_reach_every_parameter(
    network: nn.Module, edge: int, generator: torch.Generator
) -> None:
    logits = network(torch.randn(3, 3, edge, edge, generator=generator))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_both_are_in_the_catalog_with_their_image_size() -> None:
    assert find_model("darts_cifar").image_size == 32
    assert find_model("darts_imagenet").image_size == 224
