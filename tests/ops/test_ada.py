"""Adaptive augmentation: nothing at p = 0, everything inside its bounds at p = 1, and p follows the discriminator."""

import pytest
import torch

from facekit.ops import ada


def test_nothing_changes_at_p_0():
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    assert torch.allclose(ada.Augmentation()(x), x, atol=1e-5)


def test_colour_turns_keep_grey_grey():
    torch.manual_seed(0)
    grey = torch.rand(8, 1, 4, 4).expand(-1, 3, -1, -1)
    changed = ada.change_colour(grey, torch.ones(()))
    assert not torch.allclose(changed, grey)
    assert torch.allclose(changed, changed[:, :1].expand(-1, 3, -1, -1), atol=1e-5)


def test_geometry_moves_every_image_its_own_way_and_lets_gradients_through():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16).repeat(4, 1, 1, 1).requires_grad_()
    changed = ada.change_geometry(x, torch.ones(()))
    assert len({tuple(image.flatten().tolist()) for image in changed.detach()}) == 4
    changed.sum().backward()
    assert x.grad.abs().sum() > 0


def test_the_share_of_changed_images_is_p():
    torch.manual_seed(0)
    x = torch.zeros(()).expand(4000, 3, 64, 64)
    matrices = ada.geometry(x, torch.tensor(0.1))
    changed = (matrices - torch.eye(3)).abs().flatten(1).amax(1) > 1e-6
    assert changed.float().mean().item() == pytest.approx(
        1 - 0.95 * 0.925 * 0.9**5, abs=0.03
    )  # half of the mirrorings change nothing


@pytest.mark.parametrize(("logit", "wanted"), [(1.0, 0.04), (-1.0, 0.0)])
def test_p_rises_while_the_discriminator_is_too_sure(logit, wanted):
    augmentation = ada.Augmentation(target=0.6, images=100)
    for _ in range(2):
        augmentation.adapt(torch.full((2, 1), logit), seen=2)
    assert augmentation.p.item() == pytest.approx(wanted)
