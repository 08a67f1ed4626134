"""projected-cut: the scale of its frozen features, and the colours that it keeps."""

import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from facekit.nets.vgg import VGG
from facekit.recipes.projected import LAYERS, ProjectedCUT, Trunk
from facekit.storage import images


@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_the_trunk_of_projected_cut_gives_features_of_about_unit_size_whatever_its_weights(scale):
    torch.manual_seed(0)
    vgg = VGG("vgg19", LAYERS)
    with torch.no_grad():
        vgg.features[0].weight *= scale
    face = images.to_tensor(images.resize(Image.fromarray(astronaut()[10:210, 125:325]), 64))[None]
    for y in Trunk(vgg)(face).values():
        assert 0.5 < y.square().mean().sqrt() < 2.5


def test_the_colours_of_projected_cut_are_those_of_the_lit_photo_cell_by_cell():
    recipe = ProjectedCUT({"lighting": 1.0}, 64)
    torch.manual_seed(0)
    photo = torch.rand(2, 3, 64, 64) * 2 - 1

    def colour(translate):
        nets = torch.nn.ModuleDict({"ab": translate})
        return recipe.Scene(recipe, nets, {"a": photo}, 0).colour()

    class Shuffled(torch.nn.Module):
        """Every pixel goes elsewhere within its cell of 8 x 8."""

        def forward(self, x):
            cells = x.unflatten(3, (8, 8)).unflatten(2, (8, 8))
            return cells.flip(3, 5).flatten(2, 3).flatten(3, 4)

    class Brighter(torch.nn.Module):
        def forward(self, x):
            return x + 0.25

    assert colour(torch.nn.Identity()) == 0
    assert colour(Shuffled()) == pytest.approx(0, abs=1e-6)
    assert colour(Brighter()) == pytest.approx(0.25, abs=1e-6)


def test_lightness_leaves_shadows_on_a_face_to_the_drawing_but_no_hues_and_not_the_whole_pictures_light():
    torch.manual_seed(0)
    photo = torch.rand(2, 3, 64, 64) - 0.5
    left = torch.cat([torch.ones(64, 32), torch.zeros(64, 32)], 1)

    def colour(change, lightness):
        recipe = ProjectedCUT({"lighting": 0.0, "lightness": lightness}, 64)

        class Changed(torch.nn.Module):
            def forward(self, x):
                return x + change

        return recipe.Scene(recipe, torch.nn.ModuleDict({"ab": Changed()}), {"a": photo}, 0).colour().item()

    flat = 0.2 * left - 0.1  # half a face lighter, the other darker
    assert colour(flat, 1.0) == pytest.approx(0.1, abs=1e-6)
    assert colour(flat, 0.3) == pytest.approx(0.03, abs=1e-6) and colour(flat, 0.0) == pytest.approx(0, abs=1e-6)
    assert colour(0.2, 0.0) == pytest.approx(0.2, abs=1e-6)
    hue = flat * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    assert colour(hue, 0.0) == pytest.approx(colour(hue, 1.0), abs=1e-6) and colour(hue, 0.0) > 0.05


def test_a_translation_that_moves_with_its_photo_is_stable():
    recipe = ProjectedCUT({"lighting": 0.0}, 64)
    face = images.to_tensor(images.resize(Image.fromarray(astronaut()[10:210, 125:325]), 64))[None].expand(2, 3, 64, 64)

    class Stepped(torch.nn.Module):
        """Every cell of 8 x 8 px is flat: what moves by less jumps."""

        def forward(self, x):
            return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 8), scale_factor=8)

    def stable(translate):
        torch.manual_seed(3)
        return recipe.Scene(recipe, torch.nn.ModuleDict({"ab": translate}), {"a": face}, 0).stable().item()

    assert stable(torch.nn.Identity()) == pytest.approx(0, abs=1e-6)
    assert stable(torch.nn.Hardtanh(-0.5, 0.5)) < 0.3 * stable(Stepped())
