"""What is minimized, against the formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dirnet_convert.errors import DirnetError
from dirnet_convert.finetune.losses import Objective, logit_loss
from dirnet_convert.finetune.rbd import attention_map, rbd_loss
from dirnet_convert.recipe import Attention, Distance, DistillOptions

SEED = 11
LABELS = torch.tensor([0, 2, 1])


def _random(*shape: int, seed: int = SEED) -> torch.Tensor:
    print(f"seed {seed}")
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_label_loss_alone_is_plain_cross_entropy() -> None:
    logits = _random(3, 4).requires_grad_()
    options = DistillOptions(label_weight=1.0, logit_weight=0.0, rbd_weight=0.0)
    objective = Objective(options, 0.0)
    assert not objective.needs_teacher
    maps = [_random(3, 2, 4, 4)]
    loss = objective(LABELS, logits, maps, _random(3, 4, seed=1), maps)
    torch.testing.assert_close(loss.total, functional.cross_entropy(logits, LABELS))
    smooth = Objective(options, 0.1)(LABELS, logits).total
    torch.testing.assert_close(smooth, functional.cross_entropy(logits, LABELS, label_smoothing=0.1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logit_loss_has_the_gradient_of_soft_cross_entropy(temperature: float) -> None:
    student, teacher = _random(5, 7).requires_grad_(), _random(5, 7, seed=1)
    logit_loss(student, teacher, temperature).backward()
    difference = (student.detach() / temperature).softmax(1) - (teacher / temperature).softmax(1)
    torch.testing.assert_close(student.grad, temperature * difference / 5)
    assert logit_loss(teacher, teacher, temperature).item() == pytest.approx(0.0, abs=1e-12)


def test_rbd_follows_its_formula_and_gradient() -> None:
    student = [_random(3, 4, 5, 5).requires_grad_(), _random(3, 8, 2, 2).requires_grad_()]
    teacher = [_random(3, 6, 5, 5, seed=1), _random(3, 8, 2, 2, seed=2)]
    expected = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        for n in range(3):
            a = (ours[n].detach() ** 2).sum(0).flatten()
            b = (theirs[n] ** 2).sum(0).flatten()
            expected += float((a / a.norm() - b / b.norm()).norm()) / 3
    assert rbd_loss(student, teacher).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda *maps: rbd_loss(maps, teacher), tuple(student))


def test_rbd_is_zero_with_finite_gradient_where_maps_agree() -> None:
    maps = _random(2, 3, 4, 4).requires_grad_()
    loss = rbd_loss([maps], [3.0 * maps.detach()])
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-7)
    assert maps.grad is not None and bool(torch.isfinite(maps.grad).all())
    zeros = torch.zeros(2, 3, 4, 4, requires_grad=True)
    rbd_loss([zeros], [zeros.detach()]).backward()
    assert zeros.grad is not None and bool(torch.isfinite(zeros.grad).all())


def test_attention_maps_have_length_one() -> None:
    for shape in ((2, 3, 4, 5), (2, 9)):
        maps = attention_map(_random(*shape))
        torch.testing.assert_close(maps.norm(dim=1), torch.ones(2, dtype=torch.double))


def test_parts_are_weighed() -> None:
    logits, teacher = _random(3, 4), _random(3, 4, seed=1)
    ours, theirs = [_random(3, 2, 4, 4)], [_random(3, 2, 4, 4, seed=1)]
    weights = DistillOptions(label_weight=0.5, logit_weight=2.0, temperature=3.0, rbd_weight=7.0)
    loss = Objective(weights, 0.0)(LABELS, logits, ours, teacher, theirs)
    label, logit, rbd = loss.parts
    torch.testing.assert_close(loss.total, 0.5 * label + 2.0 * logit + 7.0 * rbd)
    torch.testing.assert_close(logit, logit_loss(logits, teacher, 3.0))
    torch.testing.assert_close(rbd, rbd_loss(ours, theirs))


@pytest.mark.parametrize("form", list(Attention))
@pytest.mark.parametrize("distance", list(Distance))
def test_every_form_of_rbd_follows_its_formula(form: Attention, distance: Distance) -> None:
    # Only where channels are compared do both need the same number.
    channels = 4 if form is Attention.CHANNELS else 6
    ours, theirs = _random(3, 4, 5, 5).requires_grad_(), _random(3, channels, 5, 5, seed=1)

    def plain(x: torch.Tensor) -> torch.Tensor:
        energy = {
            Attention.SUM_SQUARES: (x**2).sum(0),
            Attention.MEAN_ABS: x.abs().mean(0),
            Attention.MAX_NORMALIZED: (x**2).mean(0),
            Attention.CHANNELS: x,
        }[form].flatten()
        return energy / (energy.max() if form is Attention.MAX_NORMALIZED else energy.norm())

    expected = 0.0
    for n in range(3):
        a, b = plain(ours[n].detach()), plain(theirs[n])
        expected += {
            Distance.L2: (a - b).norm(),
            Distance.MEAN_SQUARE: ((a - b) ** 2).mean(),
            Distance.COSINE: 1 - (a @ b) / (a.norm() * b.norm()),
        }[distance].item() / 3
    loss = rbd_loss([ours], [theirs], form, distance)
    assert loss.item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda maps: rbd_loss([maps], [theirs], form, distance), (ours,))
    zeros = torch.zeros(2, 3, 4, 4, requires_grad=True)
    rbd_loss([zeros], [zeros.detach()], form, distance).backward()
    assert zeros.grad is not None and bool(torch.isfinite(zeros.grad).all())


def test_representations_that_do_not_match_are_refused() -> None:
    with pytest.raises(DirnetError, match="rbd_weight=0"):
        rbd_loss([], [])
    with pytest.raises(DirnetError, match="rbd_weight=0"):
        rbd_loss([_random(1, 2, 4, 4)], [_random(1, 2, 2, 2)])
    with pytest.raises(DirnetError, match=r"2 channels and the teacher's 3; .*attention=sum_squares"):
        rbd_loss([_random(1, 2, 4, 4)], [_random(1, 3, 4, 4)], Attention.CHANNELS)
