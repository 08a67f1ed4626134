"""Networks: parameter counts and shapes of the papers and their code, and what their blocks promise."""

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from facekit.nets.animegan import AnimeGenerator
from facekit.nets.blocks import EPS, ILN, AdaLIN, InstanceNorm2d, clip_rho_, mixed_norm
from facekit.nets.cartoon import CartoonDiscriminator, CartoonGenerator
from facekit.nets.image_pool import ImagePool
from facekit.nets.patchgan import PatchDiscriminator
from facekit.nets.pretrained import vgg_weights
from facekit.nets.projected import FeatureHead, Projection
from facekit.nets.resnet import ResnetGenerator
from facekit.nets.spectral_norm import SpectralConv2d
from facekit.nets.ugatit import AttentionMap, UGATITDiscriminator, UGATITGenerator
from facekit.nets.unet import ResidualUNet
from facekit.nets.vgg import VGG
from facekit.ops import augment

SHARED = Path(os.environ.get("FACEKIT_SHARED", Path(__file__).parents[3] / "shared"))


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: UGATITGenerator(size=256), 278_959_808),
        (lambda: UGATITGenerator(size=128), 77_633_216),
        (lambda: UGATITGenerator(size=112), 61_904_576),
        (lambda: UGATITGenerator(light=True), 10_589_888),
        (lambda: UGATITGenerator(blocks=6), 283_679_424),
        (lambda: UGATITGenerator(blocks=6, light=True), 15_309_504),
        (lambda: UGATITDiscriminator(layers=5), 3_290_560),
        (lambda: UGATITDiscriminator(layers=7), 53_130_176),
        (lambda: ResnetGenerator(blocks=9), 11_378_179),
        (lambda: ResnetGenerator(blocks=6), 7_837_699),
        (lambda: ResnetGenerator(blocks=9, in_channels=4), 11_381_315),
        (lambda: ResnetGenerator(blocks=6, in_channels=4, out_channels=4), 7_843_972),
        (lambda: PatchDiscriminator(), 2_764_737),
        (lambda: PatchDiscriminator(in_channels=4), 2_765_761),
        (lambda: VGG("vgg19", ["pool5"]), 20_024_384),
        (lambda: VGG("vgg19", ["conv4_4"]), 10_585_152),
        (lambda: VGG("vgg16", ["conv4_3"]), 7_635_264),
    ],
)
def test_parameter_count(make, expected):
    with torch.device("meta"):
        assert count(make()) == expected


def test_parameter_count_of_the_parts_of_ugatit():
    with torch.device("meta"):
        net = UGATITGenerator()
    assert count(net.encoder) == 5_096_640
    assert count(net.attention.average) == count(net.attention.maximum) == 256
    assert count(net.attention.merge) == 131_328
    assert count(net.style) == 268_500_992
    assert count(net.gamma) == count(net.beta) == 65_536
    assert count(net.decoder[0]) == 1_180_160
    assert count(net.up) == 378_624


@pytest.mark.slow
@pytest.mark.parametrize(("size", "patch", "far"), [(256, 30, 6), (128, 14, 2), (112, 12, 1)])
def test_map_sizes(size, patch, far):
    with torch.device("meta"):
        x = torch.empty(2, 3, size, size)
        assert PatchDiscriminator()(x).shape == (2, 1, patch, patch)
        local, distant = UGATITDiscriminator(layers=5)(x), UGATITDiscriminator(layers=7)(x)
        made = UGATITGenerator(size=size)(x)
        cycle = ResnetGenerator()(x)
    assert local.out.shape == (2, 1, patch, patch)
    assert distant.out.shape == (2, 1, far, far)
    assert local.cam.shape == distant.cam.shape == made.cam.shape == (2, 2)
    assert made.out.shape == cycle.shape == x.shape
    assert made.heatmap.shape == (2, 1, size // 4, size // 4)


def test_the_global_discriminator_refuses_80_px():
    with pytest.raises(RuntimeError):
        UGATITDiscriminator(4, layers=7)(torch.rand(1, 3, 80, 80))


def test_the_full_generator_is_tied_to_its_size_and_the_light_one_is_not():
    with pytest.raises(ValueError, match="64 x 64 px only"):
        UGATITGenerator(4, 1, 64)(torch.rand(1, 3, 32, 32))
    assert UGATITGenerator(4, 1, 64, light=True)(torch.rand(1, 3, 32, 48)).out.shape == (1, 3, 32, 48)


def naive(x, rho, gamma, beta):
    """AdaLIN written out, with unbiased variances."""
    instance = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + EPS).sqrt()
    layer = (x - x.mean((1, 2, 3), keepdim=True)) / (x.var((1, 2, 3), keepdim=True) + EPS).sqrt()
    return gamma * (rho * instance + (1 - rho) * layer) + beta


def test_mixed_norm_is_the_formula_written_out_with_its_gradients():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 6, 7, dtype=torch.float64) * 2 + torch.arange(5).view(1, 5, 1, 1)
    others = [torch.rand(1, 5, 1, 1), torch.randn(3, 5, 1, 1), torch.randn(3, 5, 1, 1)]
    inputs = [x, *(t.double() for t in others)]
    results = []
    for function in (mixed_norm, naive):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = function(*leaves)
        (out * torch.arange(out.numel()).view_as(out).sin()).sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    for ours, written_out in zip(*results, strict=True):
        assert torch.allclose(ours, written_out, rtol=1e-10, atol=1e-10)


def test_rho_1_is_instance_norm_and_rho_0_is_layer_norm():
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    one, zero = torch.ones(1, 4, 1, 1).double(), torch.zeros(1, 4, 1, 1).double()
    area, whole = 64, 4 * 64
    instance = torch.nn.functional.instance_norm(x) * ((area - 1) / area) ** 0.5
    layer = torch.nn.functional.layer_norm(x, x.shape[1:]) * ((whole - 1) / whole) ** 0.5
    assert torch.allclose(mixed_norm(x, one, one, zero), instance, atol=1e-5)
    assert torch.allclose(mixed_norm(x, zero, one, zero), layer, atol=1e-5)


def test_rho_starts_at_09_where_it_adapts_and_at_0_where_it_does_not():
    assert AdaLIN(3).rho.unique().tolist() == pytest.approx([0.9])
    assert ILN(3).rho.unique().tolist() == [0]


def test_clipping_rho_leaves_everything_else_alone():
    net = UGATITGenerator(4, 1, 32, light=True)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-3, 3)
    before = copy.deepcopy(net)
    clip_rho_(net)
    for (name, new), old in zip(net.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(new, old.clamp(0, 1) if name.endswith("rho") else old)


def test_the_discriminators_attention_weights_are_not_normalised_but_its_logits_are():
    torch.manual_seed(0)
    attention = AttentionMap(6, nn.Identity(), spectral=True).eval()
    x = torch.rand(2, 6, 3, 3)
    features, logits, heatmap = attention(x)
    raw, maximum = attention.average.weight, attention.maximum.weight
    normal = spectral_norm(copy.deepcopy(attention.average)).eval().weight
    assert not torch.allclose(raw, normal)
    assert torch.allclose(logits[:, 0], (x.mean((2, 3)) * normal).sum(1), atol=1e-6)
    weighted = torch.cat([x * raw.view(1, -1, 1, 1), x * maximum.view(1, -1, 1, 1)], 1)
    assert torch.allclose(features, attention.merge(weighted), atol=1e-6)
    assert torch.allclose(heatmap, features.sum(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(
    "net",
    [
        lambda: UGATITGenerator(4, 1, 32, light=True),
        lambda: ResnetGenerator(4, 1),
        lambda: PatchDiscriminator(4),
        lambda: UGATITDiscriminator(4),
        lambda: ResidualUNet(8, 1),
    ],
)
def test_images_of_a_batch_do_not_see_each_other(net):
    """One pass over two images is two passes over one: what lets a recipe join its passes."""
    torch.manual_seed(0)
    made = net().double().eval()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    both, alone = made(x), [made(image[None]) for image in x]
    first = [t[0] for t in both] if isinstance(both, tuple) else [both[0]]
    same = list(alone[0]) if isinstance(alone[0], tuple) else [alone[0]]
    for one, other in zip(first, same, strict=True):
        assert torch.allclose(one, other[0], atol=1e-12)


@pytest.mark.parametrize("make", [lambda: UGATITDiscriminator(4), lambda: FeatureHead(4, 4, 1, True)])
def test_spectral_norm_survives_copies_and_safetensors(make):
    net = make()
    again = make()
    again.load_state_dict(load(save({k: v.contiguous() for k, v in net.state_dict().items()})))
    x = torch.rand(2, 3 if isinstance(net, UGATITDiscriminator) else 4, 32, 32)
    results = [n.eval()(x) for n in (net, again, copy.deepcopy(net))]
    flat = [r.out if isinstance(r, tuple) else r for r in results]
    assert torch.equal(flat[0], flat[1])
    assert torch.equal(flat[0], flat[2])


def test_two_passes_in_training_mode_can_both_go_backward():
    net = UGATITDiscriminator(4)
    x = torch.rand(1, 3, 32, 32)
    (net(x).out.mean() + net(x + 1).out.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.body.parameters())


def test_vgg_builds_and_runs_nothing_below_the_deepest_layer():
    net = VGG("vgg19", ["relu1_2", "conv2_1"])
    assert net.names[-1] == "conv2_1"
    assert set(net.state_dict()) == {f"features.{n}.{k}" for n in (0, 2, 5) for k in ("weight", "bias")}
    found = net(torch.rand(1, 3, 16, 16))
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "relu1_2": (1, 64, 16, 16),
        "conv2_1": (1, 128, 8, 8),
    }


def test_vgg_conv_layers_are_before_the_relu():
    net = VGG("vgg16", ["conv1_2", "relu1_2"])
    found = net(torch.randn(1, 3, 8, 8))
    assert found["conv1_2"].min() < 0
    assert torch.equal(found["relu1_2"], found["conv1_2"].relu())


def test_vgg_preprocessing_is_that_of_its_weights():
    seen = {}
    for kind in ("caffe", "torchvision"):
        net = VGG("vgg19", ["conv1_1"], kind)
        net.features[0].register_forward_pre_hook(lambda module, args, kind=kind: seen.update({kind: args[0]}))
        net(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4))
    assert seen["caffe"][0, :, 0, 0].tolist() == pytest.approx([-123.68, 127.5 - 116.78, 255 - 103.94], abs=1e-4)
    expected = [-0.485 / 0.229, (0.5 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert seen["torchvision"][0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="no layer"):
        VGG("vgg16", ["conv4_4"])


def test_real_vgg_weights_tell_a_picture_from_noise():
    path = SHARED / "weights" / "vgg-to-relu3_1.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}: set FACEKIT_SHARED")
    net = VGG("vgg19", ["relu2_2", "relu3_1"], "caffe")
    missing = net.load_state_dict(vgg_weights(str(path)), strict=False)
    assert not missing.missing_keys
    flat, noise = torch.zeros(1, 3, 32, 32), torch.rand(1, 3, 32, 32) * 2 - 1
    assert net(noise)["relu3_1"].mean() > 1.5 * net(flat)["relu3_1"].mean()


def test_projections_have_length_one():
    x = Projection(5)(torch.randn(2, 5, 4, 4))
    assert torch.allclose(x.norm(dim=1), torch.ones(2, 4, 4), atol=1e-5)


def test_a_comparing_head_tells_equal_images_from_different_ones():
    torch.manual_seed(0)
    head = FeatureHead(4, 4, 1, compare=True).eval()
    one, other = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    alone = head(torch.cat([one, one]))[0]
    beside_another = head(torch.cat([one, other]))[0]
    assert not torch.allclose(alone, beside_another)


def images(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_the_pool_gives_back_its_first_images_and_then_older_ones_half_of_the_time():
    torch.manual_seed(0)
    pool = ImagePool(50, 2)
    first = images(range(50))
    assert torch.equal(pool(first), first)
    later = images(range(50, 1050))
    out = pool(later)
    old = (out[:, 0, 0, 0] != later[:, 0, 0, 0]).float().mean().item()
    assert 0.45 < old < 0.55
    assert set(pool.images[:, 0, 0, 0].tolist()) <= set(range(1050))


def test_a_pool_takes_the_images_of_a_batch_one_after_another():
    pool, kept = ImagePool(3, 2), []
    for step in range(100):
        torch.manual_seed(step)
        given = [10.0 * step + index for index in range(1 + step % 5)]
        found = pool(images(given))[:, 0, 0, 0].tolist()
        for value, out in zip(given, found, strict=True):
            if len(kept) < 3:
                kept.append(value)
                assert out == value
            elif out != value:  # the new one has the place of the one that came back
                kept[kept.index(out)] = value
        assert pool.images[: len(kept), 0, 0, 0].tolist() == kept and int(pool.count) == len(kept)


def test_the_seed_decides_what_a_pool_gives_back():
    pools = [ImagePool(3, 2) for _ in range(3)]
    results = []
    for pool, seed in zip(pools, (1, 1, 2), strict=True):
        torch.manual_seed(seed)
        results.append(pool(images(range(40))))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_a_full_pool_gives_back_each_of_its_images_as_often():
    torch.manual_seed(0)
    pool, found = ImagePool(4, 2), torch.zeros(4)
    pool(images(range(4)))
    for _ in range(500):
        pool.images.copy_(images(range(4)))
        out = int(pool(images([9]))[0, 0, 0, 0])
        if out != 9:
            found[out] += 1
    assert found.sum() == pytest.approx(250, abs=50) and found.min() > 35


def test_the_pool_resumes_where_it_was():
    pool, again = ImagePool(3, 2), ImagePool(3, 2)
    pool(images(range(5)))
    again.load_state_dict(pool.state_dict())
    results = []
    for one in (pool, again):
        torch.manual_seed(1)
        results.append(one(images(range(10, 20))))
    assert torch.equal(*results)


def test_a_pool_of_0_passes_everything_through():
    x = images(range(4))
    assert ImagePool(0, 2)(x) is x


@pytest.mark.parametrize("change", [augment.shift, augment.colour, augment.cutout])
def test_images_augmented_together_change_alike(change):
    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16)
    first, second = change(torch.cat([x, x]), together=2).chunk(2)
    assert torch.allclose(first, second)
    assert not torch.allclose(first, x)


def test_augmentation_is_differentiable_and_keeps_the_shape():
    x = torch.rand(3, 3, 16, 16, requires_grad=True)
    y = augment.cutout(augment.colour(augment.shift(x)))
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert augment.crop(x, 8).shape == (3, 3, 8, 8)


def test_lighting_keeps_the_range_and_strength_0_changes_nothing():
    torch.manual_seed(0)
    x = torch.rand(8, 3, 8, 8) * 1.9 - 0.95
    assert augment.lighting(x).abs().max() <= 1
    assert torch.allclose(augment.lighting(x, 0.0), x, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda: ResnetGenerator(4, 2),
        lambda: PatchDiscriminator(4),
        lambda: UGATITGenerator(4, 2, 64, True),
        lambda: UGATITGenerator(4, 1, 64, False),
        lambda: UGATITDiscriminator(4, 5),
        lambda: ResidualUNet(16, 1),
        lambda: CartoonGenerator(4, 2, True),
        lambda: CartoonDiscriminator(4, True),
        lambda: AnimeGenerator(8),
    ],
)
def test_gradients_do_not_depend_on_the_layout_in_memory(make, batch):
    """torch's instance norm alone gets this wrong for one image on the CPU."""
    torch.manual_seed(0)
    net = make().double()
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    x = torch.rand(batch, 3, 64, 64).double() * 2 - 1
    found = []
    for one, given in ((net, x), (other, x.to(memory_format=torch.channels_last))):
        torch.manual_seed(5)
        y = one(given)
        y = y if isinstance(y, torch.Tensor) else y.out
        (y * torch.randn(y.shape).double()).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.grad is not None]))
    assert (found[0] - found[1]).norm() < 1e-9 * found[0].norm()


# What torch has, too, but slower


def test_spectral_normalisation_is_torchs():
    torch.manual_seed(0)
    ours = SpectralConv2d(5, 7, 4, 2, padding=1, padding_mode="reflect").double()
    torchs = spectral_norm(nn.Conv2d(5, 7, 4, 2, padding=1, padding_mode="reflect")).double()
    with torch.no_grad():
        torchs.parametrizations.weight.original.copy_(ours.weight)
        torchs.bias.copy_(ours.bias)
    for _ in range(300):
        ours.iterate()
        torchs.parametrizations.weight[0]._power_method(torchs.parametrizations.weight.original.flatten(1), 1)
    x = torch.rand(2, 5, 8, 8, dtype=torch.float64)
    found = ours(x), torchs(x)
    assert torch.allclose(*found, rtol=1e-12)
    for out in found:
        out.sin().sum().backward()
    assert torch.allclose(ours.weight.grad, torchs.parametrizations.weight.original.grad, atol=1e-12)
    assert torch.allclose(ours.bias.grad, torchs.bias.grad, atol=1e-12)
    sigma = torch.linalg.svdvals(ours.matrix())[0]
    assert torch.allclose(found[0], F.conv2d(F.pad(x, (1,) * 4, "reflect"), ours.weight / sigma, ours.bias, 2))


def test_each_training_pass_iterates_once_and_none_in_evaluation():
    net = SpectralConv2d(3, 4, 3)
    x, before = torch.rand(1, 3, 5, 5), net.u.clone()
    expected = net.weight.permute(0, 2, 3, 1).flatten(1).mv(net.v)
    net(x)
    assert torch.allclose(net.u, expected / expected.norm()) and not torch.equal(net.u, before)
    before = net.u.clone()
    net.eval()(x)
    assert torch.equal(net.u, before)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_norm_is_torchs_also_in_16_bits(affine, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16).to(dtype)
    torchs, ours = nn.InstanceNorm2d(3, affine=affine), InstanceNorm2d(3, affine=affine)
    if affine:
        with torch.no_grad():
            for norm in (torchs, ours):
                norm.weight.copy_(torch.tensor([0.5, 1, 2]))
                norm.bias.copy_(torch.tensor([0.5, 0, -1]))
    found = []
    for norm, given in ((ours, x.clone().requires_grad_()), (torchs, x.float().requires_grad_())):
        out = norm(given)
        out.float().sin().sum().backward()
        found.append((out, given.grad.float()))
    assert found[0][0].dtype == dtype
    close = {"atol": 1e-5} if dtype is torch.float32 else {"atol": 0.03}
    assert all(torch.allclose(one.float(), other, **close) for one, other in zip(*found, strict=True))
