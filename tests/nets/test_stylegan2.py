"""StyleGAN2's nets: published counts, the public layout, and the plain formulas, which make weights per image."""

import math

import pytest
import torch
import torch.nn.functional as F

from facekit.nets import inversion, stylegan2_layout
from facekit.nets.stylegan2 import Discriminator, Generator, ModulatedConv2d
from support import public_stylegan2


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("size", "multiplier", "g", "d", "latents"),
    [
        (128, 2, 29_328_669, 28_389_121, 12),
        (256, 2, 30_034_338, 28_864_129, 14),
        (1024, 2, 30_370_060, 29_012_513, 18),
        (256, 1, 24_767_458, 24_001_089, 14),
    ],
)
def test_parameters_are_the_published_ones(size, multiplier, g, d, latents):
    with torch.device("meta"):
        generator = Generator(size, multiplier=multiplier)
        assert (count(generator), count(Discriminator(size, multiplier)), generator.latents) == (g, d, latents)


@pytest.mark.parametrize("up", [False, True])
def test_modulation_is_that_of_weights_made_for_each_image(up):
    torch.manual_seed(0)
    net = ModulatedConv2d(5, 6, 3, 4, up=up).double()
    x, w = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 4).double()
    rows = []
    for image, style in zip(x, net.affine(w), strict=True):
        weight = net.weight * net.scale * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            taps = torch.tensor([1.0, 3, 3, 1]).double()
            kernel = (torch.outer(taps, taps) / 16).expand(6, 1, 4, 4)
            wide = F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
            rows.append(F.conv2d(F.pad(wide, (1,) * 4), kernel, groups=6))
        else:
            rows.append(F.conv2d(image[None], weight, padding=1))
    assert torch.allclose(net(x, w), torch.cat(rows))


def small(seed=0):
    torch.manual_seed(seed)
    return Generator(16, 8, 2, 0.01, 8), Discriminator(16, 0.01, 8)


def test_a_public_checkpoint_gives_the_same_nets():
    g, d = small()
    for p in (*g.parameters(), *d.parameters()):
        p.data.normal_()
    found = public_stylegan2(g, d)
    assert stylegan2_layout.is_public_layout(found)
    assert not stylegan2_layout.is_public_layout(g.state_dict())
    other_g, other_d = small(1)
    other_g.load_state_dict(stylegan2_layout.generator(found["g_ema"]))
    other_d.load_state_dict(stylegan2_layout.discriminator(found["d"]))
    z = torch.randn(4, 8)
    x = g.synthesis(g.mapping(z), g.noises)
    assert torch.equal(x, other_g.synthesis(other_g.mapping(z), other_g.noises))
    assert torch.equal(d(x), other_d(x))


def test_the_deviation_is_that_of_every_images_group():
    d = small()[1]
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    found = d.deviation(x)
    for i in range(8):
        group = x[[i % 2, i % 2 + 2, i % 2 + 4, i % 2 + 6]]
        wanted = (group.var(0, correction=0) + 1e-8).sqrt().mean()
        assert torch.allclose(found[i], wanted.expand(1, 4, 4))
    assert d.deviation(x[:7]).shape == (7, 1, 4, 4)  # 7 images: groups of one


def test_frozen_parts_do_not_train():
    g, d = small()
    g.frozen, d.frozen_blocks = ("mapping.", "layers.1."), 1
    g.requires_grad_(True)
    d.requires_grad_(True)
    frozen = {name for name, p in g.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(("mapping.", "layers.1.")) for name in frozen)
    assert not d.from_rgb.weight.requires_grad and not d.blocks[0].first.weight.requires_grad
    assert d.blocks[1].first.weight.requires_grad


@pytest.mark.slow
def test_inversion_finds_a_picture_that_the_generator_drew():
    g, d = small()
    with torch.no_grad():
        wanted = g.synthesis(g.mapping(torch.randn(2, 8)), g.noises)
    before = [p.requires_grad for p in g.parameters()]
    near = inversion.invert(g, wanted, d.features, steps=60)
    far = inversion.invert(g, wanted, d.features, steps=1)
    assert near.styles.shape == (2, g.latents, 8)
    assert (near.distance < 0.5 * far.distance).all()
    assert [p.requires_grad for p in g.parameters()] == before
    again = inversion.invert(g, wanted, d.features, steps=60)
    assert torch.equal(near.styles, again.styles)


def test_white_noise_has_no_correlation_and_a_picture_has():
    torch.manual_seed(0)
    white = torch.randn(1, 1, 64, 64)
    soft = F.interpolate(torch.randn(1, 1, 8, 8), 64, mode="bilinear")
    assert inversion.noise_correlation(white) < 0.2 < inversion.noise_correlation(soft / soft.std())


def test_the_mean_latent_is_always_the_same():
    g = small()[0]
    assert torch.equal(g.mean_w(64), g.mean_w(64))
    assert math.isfinite(g.mean_w(64).sum().item())
