"""`facekit import`: files in the layouts of the authors' code, built here from public facts, give the same images."""

import argparse
import io
import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import toy
from facekit.nets import old_pickle
from facekit.recipe_api import checkpoint

SIZE = 32


def conv(inside, out, kernel, stride=1, padding=0, bias=True):
    return nn.Conv2d(inside, out, kernel, stride, padding, bias=bias)


class Block(nn.Module):
    """A residual block under the name that an official file gives its layers."""

    def __init__(self, name, *layers):
        super().__init__()
        self.name = name
        setattr(self, name, nn.Sequential(*layers))

    def forward(self, x):
        return x + getattr(self, self.name)(x)


def norm(width, **more):
    return nn.InstanceNorm2d(width, **more)


class Filter(nn.Module):
    """CUT's fixed blur: halves, or doubles with `up`."""

    def __init__(self, channels, up=False):
        super().__init__()
        self.up = up
        row = torch.tensor([1.0, 3, 3, 1] if up else [1.0, 2, 1])
        kernel = row[:, None] * row / row.sum() ** 2 * (4 if up else 1)
        self.register_buffer("filt", kernel.expand(channels, 1, -1, -1).clone())

    def forward(self, x):
        x = F.pad(x, [1] * 4, "replicate" if self.up else "reflect")
        if not self.up:
            return F.conv2d(x, self.filt, stride=2, groups=x.shape[1])
        return F.conv_transpose2d(x, self.filt, stride=2, padding=2, groups=x.shape[1])[..., 1:-1, 1:-1]


def resnet(width=4, blocks=2, cut=False):
    """CycleGAN's generator, or CUT's, as a module whose state dict has the official names."""
    w = width

    def down(inside, out):
        stride = 1 if cut else 2
        return [conv(inside, out, 3, stride, 1), norm(out), nn.ReLU(), *([Filter(out)] if cut else [])]

    def up(inside, out):
        if cut:
            return [Filter(inside, True), conv(inside, out, 3, 1, 1), norm(out), nn.ReLU()]
        return [nn.ConvTranspose2d(inside, out, 3, 2, 1, 1), norm(out), nn.ReLU()]

    def block():
        half = [nn.ReflectionPad2d(1), conv(4 * w, 4 * w, 3), norm(4 * w)]
        return Block("conv_block", *half, nn.ReLU(), nn.ReflectionPad2d(1), conv(4 * w, 4 * w, 3), norm(4 * w))

    net = nn.Module()
    net.model = nn.Sequential(
        *[nn.ReflectionPad2d(3), conv(3, w, 7), norm(w), nn.ReLU(), *down(w, 2 * w), *down(2 * w, 4 * w)],
        *[block() for _ in range(blocks)],
        *[*up(4 * w, 2 * w), *up(2 * w, w), nn.ReflectionPad2d(3), conv(w, 3, 7), nn.Tanh()],
    )
    return net


def stargan(width=4, blocks=2, labels=5):
    w = width

    def norms(n):
        return nn.InstanceNorm2d(n, affine=True, track_running_stats=True)

    def block():
        c = 4 * w
        half = [conv(c, c, 3, 1, 1, False), norms(c)]
        return Block("main", *half, nn.ReLU(), conv(c, c, 3, 1, 1, False), norms(c))

    net = nn.Module()
    net.main = nn.Sequential(
        *[conv(3 + labels, w, 7, 1, 3, False), norms(w), nn.ReLU()],
        *[conv(w, 2 * w, 4, 2, 1, False), norms(2 * w), nn.ReLU()],
        *[conv(2 * w, 4 * w, 4, 2, 1, False), norms(4 * w), nn.ReLU()],
        *[block() for _ in range(blocks)],
        *[nn.ConvTranspose2d(4 * w, 2 * w, 4, 2, 1, bias=False), norms(2 * w), nn.ReLU()],
        *[nn.ConvTranspose2d(2 * w, w, 4, 2, 1, bias=False), norms(w), nn.ReLU()],
        *[conv(w, 3, 7, 1, 3, False), nn.Tanh()],
    )
    for module in net.modules():
        if isinstance(module, nn.InstanceNorm2d):
            nn.init.uniform_(module.weight)
            nn.init.normal_(module.bias)
    return net


class Unit(nn.Module):
    """A convolution block of UNIT: its norm is registered before its convolution."""

    def __init__(self, inside, out, kernel, stride, padding, normed="in", last=nn.ReLU):
        super().__init__()
        self.pad = nn.ReflectionPad2d(padding)
        if normed == "ln":
            self.norm = nn.Module()
            self.norm.gamma, self.norm.beta = nn.Parameter(torch.rand(out)), nn.Parameter(torch.randn(out))
        self.kind, self.activation = normed, last()
        self.conv = conv(inside, out, kernel, stride)

    def forward(self, x):
        x = self.conv(self.pad(x))
        if self.kind == "in":
            x = F.instance_norm(x)
        elif self.kind == "ln":
            flat = x.flatten(1)
            x = (x - flat.mean(1)[:, None, None, None]) / (flat.std(1)[:, None, None, None] + 1e-5)
            x = x * self.norm.gamma[:, None, None] + self.norm.beta[:, None, None]
        return self.activation(x)


def unit(width=4, blocks=2):
    w, c = width, 4 * width

    def residuals():
        found = nn.Module()
        rows = [Block("model", Unit(c, c, 3, 1, 1), Unit(c, c, 3, 1, 1, last=nn.Identity)) for _ in range(blocks)]
        found.model = nn.Sequential(*rows)
        found.forward = lambda x: found.model(x)
        return found

    net = nn.Module()
    net.enc, net.dec = nn.Module(), nn.Module()
    net.enc.model = nn.Sequential(Unit(3, w, 7, 1, 3), Unit(w, 2 * w, 4, 2, 1), Unit(2 * w, c, 4, 2, 1), residuals())
    net.dec.model = nn.Sequential(
        *[residuals(), nn.Upsample(scale_factor=2), Unit(c, 2 * w, 5, 1, 2, "ln")],
        *[nn.Upsample(scale_factor=2), Unit(2 * w, w, 5, 1, 2, "ln"), Unit(w, 3, 7, 1, 3, "none", nn.Tanh)],
    )
    return net


def combogan(width=4, encoder_blocks=1, decoder_blocks=2):
    w, c = width, 4 * width

    def block():
        half = [nn.ReflectionPad2d(1), conv(c, c, 3), norm(c)]
        return Block("conv_block", *half, nn.PReLU(), nn.ReflectionPad2d(1), conv(c, c, 3), norm(c))

    encoder, decoder = nn.Module(), nn.Module()
    encoder.model = nn.Sequential(
        *[nn.ReflectionPad2d(3), conv(3, w, 7), norm(w), nn.PReLU()],
        *[conv(w, 2 * w, 3, 2, 1), norm(2 * w), nn.PReLU(), conv(2 * w, c, 3, 2, 1), norm(c), nn.PReLU()],
        *[block() for _ in range(encoder_blocks)],
    )
    decoder.model = nn.Sequential(
        *[block() for _ in range(decoder_blocks)],
        *[nn.ConvTranspose2d(c, 2 * w, 4, 2, 1), norm(2 * w), nn.PReLU()],
        *[nn.ConvTranspose2d(2 * w, w, 4, 2, 1), norm(w), nn.PReLU()],
        *[nn.ReflectionPad2d(3), conv(w, 3, 7), nn.Tanh()],
    )
    return encoder, decoder


class Scaled(nn.Module):
    """The instance norm of the port of CartoonGAN's released weights."""

    def __init__(self, width):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(width)), nn.Parameter(torch.randn(width))

    def forward(self, x):
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-9).sqrt() * self.scale[:, None, None] + self.shift[:, None, None]


class Port(nn.Module):
    """The port of CartoonGAN's released weights, two of its eight residual blocks: blue, green, red in and out."""

    def __init__(self, width=4):
        super().__init__()
        w, c = width, 4 * width
        self.conv01_1, self.in01_1 = conv(3, w, 7), Scaled(w)
        self.conv02_1, self.conv02_2, self.in02_1 = conv(w, 2 * w, 3, 2, 1), conv(2 * w, 2 * w, 3, 1, 1), Scaled(2 * w)
        self.conv03_1, self.conv03_2, self.in03_1 = conv(2 * w, c, 3, 2, 1), conv(c, c, 3, 1, 1), Scaled(c)
        for number in ("04", "05"):
            for half in "12":
                setattr(self, f"conv{number}_{half}", conv(c, c, 3))
                setattr(self, f"in{number}_{half}", Scaled(c))
        self.deconv01_1, self.deconv01_2 = nn.ConvTranspose2d(c, 2 * w, 3, 2, 1, 1), conv(2 * w, 2 * w, 3, 1, 1)
        self.in12_1 = Scaled(2 * w)
        self.deconv02_1, self.deconv02_2 = nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), conv(w, w, 3, 1, 1)
        self.in13_1, self.deconv03_1 = Scaled(w), conv(w, 3, 7)

    def forward(self, x):
        def padded(x, px):
            return F.pad(x, [px] * 4, "reflect")

        y = F.relu(self.in01_1(self.conv01_1(padded(x, 3))))
        y = F.relu(self.in02_1(self.conv02_2(self.conv02_1(y))))
        y = F.relu(self.in03_1(self.conv03_2(self.conv03_1(y))))
        y = y + self.in04_2(self.conv04_2(padded(F.relu(self.in04_1(self.conv04_1(padded(y, 1)))), 1)))
        y = y + self.in05_2(self.conv05_2(padded(F.relu(self.in05_1(self.conv05_1(padded(y, 1)))), 1)))
        y = F.relu(self.in12_1(self.deconv01_2(self.deconv01_1(y))))
        y = F.relu(self.in13_1(self.deconv02_2(self.deconv02_1(y))))
        return self.deconv03_1(padded(y, 3)).tanh()


class NamedBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv1_norm = conv(width, width, 3, 1, 1), norm(width)
        self.conv2, self.conv2_norm = conv(width, width, 3, 1, 1), norm(width)

    def forward(self, x):
        return x + self.conv2_norm(self.conv2(F.relu(self.conv1_norm(self.conv1(x)))))


def znxlwm(width=4, blocks=2):
    w, c = width, 4 * width
    net = nn.Module()
    net.down_convs = nn.Sequential(
        *[conv(3, w, 7, 1, 3), norm(w), nn.ReLU(), conv(w, 2 * w, 3, 2, 1), conv(2 * w, 2 * w, 3, 1, 1), norm(2 * w)],
        *[nn.ReLU(), conv(2 * w, c, 3, 2, 1), conv(c, c, 3, 1, 1), norm(c), nn.ReLU()],
    )
    net.resnet_blocks = nn.Sequential(*[NamedBlock(c) for _ in range(blocks)])
    net.up_convs = nn.Sequential(
        *[nn.ConvTranspose2d(c, 2 * w, 3, 2, 1, 1), conv(2 * w, 2 * w, 3, 1, 1), norm(2 * w), nn.ReLU()],
        *[nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), conv(w, w, 3, 1, 1), norm(w), nn.ReLU()],
        *[conv(w, 3, 7, 1, 3), nn.Tanh()],
    )
    return net


def mixed(x, rho, gamma, beta):
    """U-GAT-IT's mix of instance and layer norm, with unbiased variances."""
    of_instance, of_layer = (torch.var_mean(x, axes, keepdim=True) for axes in ((2, 3), (1, 2, 3)))
    instance, layer = ((x - mean) / (variance + 1e-5).sqrt() for variance, mean in (of_instance, of_layer))
    return (rho * instance + (1 - rho) * layer) * gamma + beta


class Rho(nn.Module):
    def __init__(self, width, own=False):
        super().__init__()
        self.rho = nn.Parameter(torch.rand(1, width, 1, 1))
        if own:
            self.gamma = nn.Parameter(torch.rand(1, width, 1, 1))
            self.beta = nn.Parameter(torch.randn(1, width, 1, 1))

    def forward(self, x):
        return mixed(x, self.rho, self.gamma, self.beta)


class Ada(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.norm1 = conv(width, width, 3, bias=False), Rho(width)
        self.conv2, self.norm2 = conv(width, width, 3, bias=False), Rho(width)

    def forward(self, x, gamma, beta):
        gamma, beta = gamma[:, :, None, None], beta[:, :, None, None]
        y = F.relu(mixed(self.conv1(F.pad(x, [1] * 4, "reflect")), self.norm1.rho, gamma, beta))
        return x + mixed(self.conv2(F.pad(y, [1] * 4, "reflect")), self.norm2.rho, gamma, beta)


class UGATIT(nn.Module):
    """U-GAT-IT's light generator, its parts registered in the official order."""

    def __init__(self, width=4, blocks=2):
        super().__init__()
        w, c = width, 4 * width

        def block():
            half = [nn.ReflectionPad2d(1), conv(c, c, 3, bias=False), norm(c)]
            return Block("conv_block", *half, nn.ReLU(), nn.ReflectionPad2d(1), conv(c, c, 3, bias=False), norm(c))

        self.gap_fc, self.gmp_fc = nn.Linear(c, 1, bias=False), nn.Linear(c, 1, bias=False)
        self.conv1x1 = conv(2 * c, c, 1)
        self.gamma, self.beta = nn.Linear(c, c, bias=False), nn.Linear(c, c, bias=False)
        for number in range(blocks):
            setattr(self, f"UpBlock1_{number + 1}", Ada(c))
        self.DownBlock = nn.Sequential(
            *[nn.ReflectionPad2d(3), conv(3, w, 7, bias=False), norm(w), nn.ReLU()],
            *[nn.ReflectionPad2d(1), conv(w, 2 * w, 3, 2, bias=False), norm(2 * w), nn.ReLU()],
            *[nn.ReflectionPad2d(1), conv(2 * w, c, 3, 2, bias=False), norm(c), nn.ReLU()],
            *[block() for _ in range(blocks)],
        )
        self.FC = nn.Sequential(nn.Linear(c, c, bias=False), nn.ReLU(), nn.Linear(c, c, bias=False), nn.ReLU())
        self.UpBlock2 = nn.Sequential(
            *[nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), conv(c, 2 * w, 3, bias=False), Rho(2 * w, True)],
            *[nn.ReLU(), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), conv(2 * w, w, 3, bias=False)],
            *[Rho(w, True), nn.ReLU(), nn.ReflectionPad2d(3), conv(w, 3, 7, bias=False), nn.Tanh()],
        )
        self.blocks = blocks

    def forward(self, x):
        x = self.DownBlock(x)
        maps = [x * fc.weight[:, :, None, None] for fc in (self.gap_fc, self.gmp_fc)]
        x = F.relu(self.conv1x1(torch.cat(maps, 1)))
        style = self.FC(x.mean((2, 3)))
        gamma, beta = self.gamma(style), self.beta(style)
        for number in range(self.blocks):
            x = getattr(self, f"UpBlock1_{number + 1}")(x, gamma, beta)
        return self.UpBlock2(x)


class Judge(nn.Module):
    """U-GAT-IT's discriminator with torch's old spectral norm, in the official order."""

    def __init__(self, width=4, layers=5):
        super().__init__()
        sn = nn.utils.spectral_norm
        body, channels = [], 3
        for number in range(layers - 2):
            out = width * 2**number
            body += [nn.ReflectionPad2d(1), sn(conv(channels, out, 4, 2)), nn.LeakyReLU(0.2)]
            channels = out
        body += [nn.ReflectionPad2d(1), sn(conv(channels, 2 * channels, 4)), nn.LeakyReLU(0.2)]
        c = 2 * channels
        self.gap_fc, self.gmp_fc = sn(nn.Linear(c, 1, bias=False)), sn(nn.Linear(c, 1, bias=False))
        self.conv1x1, self.conv = conv(2 * c, c, 1), sn(conv(c, 1, 4, bias=False))
        self.model = nn.Sequential(*body)

    def forward(self, x):
        x = self.model(x)
        maps = [x * fc.weight_orig[:, :, None, None] for fc in (self.gap_fc, self.gmp_fc)]
        x = F.leaky_relu(self.conv1x1(torch.cat(maps, 1)), 0.2)
        return self.conv(F.pad(x, [1] * 4, "reflect"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def x():
    return torch.rand(2, 3, SIZE, SIZE) * 2 - 1


def translated(facekit, x, to, *arguments, out="own.safetensors", **told):
    """Import, load and translate x."""
    done = facekit("import", *arguments[:1], out, *arguments[1:], "--json")
    assert done.code == 0, done.err
    model = checkpoint.load_model(out)
    with torch.no_grad():
        return model, model.recipe.translate(model.nets, x, to, **told)


def same(made, net, x, spread=0.01):
    with torch.no_grad():
        expected = net(x)
    assert torch.allclose(made, expected, atol=1e-5), (made - expected).abs().max()
    assert expected.std() > spread


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(("name", "side", "to"), [("latest_net_G_A", [], "b"), ("other", ["--side", "g_ba"], "a")])
def test_a_generator_of_cyclegan_or_cut(facekit, x, cut, name, side, to):
    net = resnet(cut=cut)
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, f"{name}.pth")
    model, made = translated(facekit, x, to, f"{name}.pth", "--as", "cyclegan", *side)
    same(made, net.model, x)
    assert list(model.directions.values()) == [to]
    assert model.recipe.params.antialias == cut


def test_a_folder_of_cyclegan_holds_both_directions_and_discriminators_by_their_domain(facekit, x, tmp_path):
    nets = {"A": resnet(), "B": resnet()}
    judge = nn.Module()
    judge.model = nn.Sequential(
        *[conv(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), conv(4, 8, 4, 2, 1), norm(8), nn.LeakyReLU(0.2)],
        *[conv(8, 16, 4, 2, 1), norm(16), nn.LeakyReLU(0.2), conv(16, 32, 4, 1, 1), norm(32), nn.LeakyReLU(0.2)],
        conv(32, 1, 4, 1, 1),
    )
    for side, net in nets.items():
        torch.save(net.state_dict(), f"latest_net_G_{side}.pth")
        torch.save(resnet().state_dict(), f"5_net_G_{side}.pth")
    torch.save(judge.state_dict(), "latest_net_D_A.pth")
    model, made = translated(facekit, x, "b", tmp_path, "--as", "cyclegan", out="run")
    same(made, nets["A"].model, x)
    with torch.no_grad():
        same(model.recipe.translate(model.nets, x, "a"), nets["B"].model, x)
    found = torch.load("run/state.pt", weights_only=True)["nets"]
    assert torch.equal(found["db.layers.0.weight"], judge.model[0].weight)  # D_A belongs to G_A: it judges B


@pytest.mark.slow
def test_stargan_without_its_running_statistics(facekit, x):
    net = stargan()
    torch.save(net.state_dict(), "200000-G.ckpt")
    labels = "Black_Hair,Blond_Hair,Brown_Hair,Male,Young"
    more = ["--as", "stargan", "--labels", labels, "--set", "params.single=false"]
    _, made = translated(facekit, x, "Blond_Hair", "200000-G.ckpt", *more, source=["Male", "Black_Hair+Young"])
    planes = torch.tensor([[0.0, 1, 0, 1, 0], [0, 1, 0, 0, 1]])[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    same(made, net.train().main, torch.cat([x, planes], 1))


def test_labels_must_be_named_and_as_many_as_the_weights_have(facekit):
    torch.save(stargan().state_dict(), "g.ckpt")
    done = facekit("import", "g.ckpt", "o.safetensors", "--as", "stargan")
    assert done.code == 2 and "have 5 labels" in done.err and "--labels" in done.err
    done = facekit("import", "g.ckpt", "o.safetensors", "--as", "stargan", "--labels", "a,b")
    assert done.code == 2 and "2 are named" in done.err


@pytest.mark.slow
def test_unit(facekit, x):
    nets = {"a": unit(), "b": unit()}
    torch.save({domain: net.state_dict() for domain, net in nets.items()}, "gen_00001000.pt")
    _, made = translated(facekit, x, "b", "gen_00001000.pt", "--as", "unit")
    same(made, lambda x: nets["b"].dec.model(nets["a"].enc.model(x)), x)


@pytest.mark.slow
def test_combogan(facekit, x, tmp_path):
    nets = [combogan() for _ in range(3)]
    for number, net in enumerate([*(encoder for encoder, _ in nets), *(decoder for _, decoder in nets)]):
        torch.save(net.state_dict(), f"200_net_G{number}.pth")
        torch.save(combogan()[number // 3].state_dict(), f"100_net_G{number}.pth")
    more = ["--as", "combogan", "--labels", "photo,anime,painting"]
    _, made = translated(facekit, x, "painting", tmp_path, *more, source=["anime", "anime"])
    same(made, lambda x: nets[2][1].model(nets[1][0].model(x)), x)


def test_cartoongan_as_released(facekit, x):
    net = Port()
    torch.save(net.state_dict(), "Hayao_net_G_float.pth")
    model, made = translated(facekit, x, "b", "Hayao_net_G_float.pth", "--as", "cartoongan")
    same(made, lambda x: net(x.flip(1)).flip(1), x)
    assert model.recipe.params.norm_eps == 1e-9 and model.recipe.params.blocks == 2


def test_cartoongan_of_znxlwm(facekit, x):
    net = znxlwm()
    torch.save(net.state_dict(), "generator_latest.pth")
    _, made = translated(facekit, x, "b", "generator_latest.pth", "--as", "cartoongan")
    same(made, lambda x: net.up_convs(net.resnet_blocks(net.down_convs(x))), x)


@pytest.mark.slow
def test_ugatit_with_its_discriminators(facekit, x):
    nets = {"genA2B": UGATIT(), "genB2A": UGATIT(), "disLA": Judge(), "disLB": Judge()}
    judge = nets["disLB"]
    big = torch.rand(1, 3, 64, 64)
    for _ in range(60):
        judge(big)  # lets the singular vectors settle
    torch.save({name: net.state_dict() for name, net in nets.items()}, "x_params_latest.pt")
    model, made = translated(facekit, x, "b", "x_params_latest.pt", "--as", "ugatit", out="run")
    same(made, nets["genA2B"], x)
    assert model.recipe.params.light
    own = model.recipe.nets()["lb"]
    found = torch.load("run/state.pt", weights_only=True)["nets"]
    own.load_state_dict({k.removeprefix("lb."): v for k, v in found.items() if k.startswith("lb.")})
    same(own.eval()(big).out.detach(), judge.eval(), big, spread=1e-4)


def test_the_port_of_animegan2(facekit, x):
    from facekit.nets.animegan import AnimeGenerator2

    net = AnimeGenerator2(4, tensorflow=False)  # parameters have the names of the port
    torch.save(net.state_dict(), "face_paint.pt")
    _, made = translated(facekit, x, "b", "face_paint.pt", "--as", "animegan2")
    same(made, net, x)


@pytest.mark.slow
def test_the_card_says_where_the_weights_are_from_and_training_continues_from_them(facekit, tmp_path):
    torch.save(resnet(width=8).state_dict(), "latest_net_G.pth")
    done = facekit("import", "latest_net_G.pth", "own.safetensors", "--as", "cyclegan", "--set", "data.size=32")
    assert done.code == 0, done.err
    values = json.loads(checkpoint.read_tensors(tmp_path / "own.safetensors")[1]["facekit"])
    assert values["params"]["blocks"] == 2 and values["params"]["width"] == 8 and values["data"]["size"] == 32
    (digest,) = values["made"]["imported"].values()
    assert len(digest) >= 16
    toy.domains(tmp_path / "data", 6, 32)
    settings = ["--set=params.width=8", "--set=params.blocks=2", "--set=params.d_width=4", "--size", 32]
    more = ["--steps", 1, "--out", "run", "--init", "own.safetensors"]
    done = facekit("train", "cyclegan", "--data", tmp_path / "data", *settings, *more)
    assert done.code == 0 and "initial weights from own.safetensors" in done.err, done.err
    toy.fill(tmp_path / "in", 1, 32)
    assert facekit("translate", "in", "out", "--weights", "own.safetensors", "--no-align").code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "state", "code", "words"),
    [
        (
            "cyclegan",
            lambda: {"model.1.weight": torch.zeros(4, 1, 7, 7)},
            5,
            "[4, 1, 7, 7] stands where",
        ),
        ("cyclegan", lambda: {**resnet().state_dict(), "model.99.weight": torch.zeros(3)}, 5, "is not in the net"),
        ("cyclegan", lambda: dict(list(resnet().state_dict().items())[:-1]), 5, "is missing for the net"),
        ("ugatit", lambda: resnet().state_dict(), 5, "it holds no genA2B"),
        ("ugatit", lambda: {"genA2B": {"HourGlass1.x.weight": torch.zeros(1)}, "genB2A": {}}, 5, "hourglass"),
        ("unit", lambda: {"a": {}}, 5, "it holds no auto-encoders"),
        ("xgan", dict, 2, "facekit does not know official weights for xgan"),
    ],
)
def test_what_does_not_fit_is_said(facekit, recipe, state, code, words):
    torch.save(state(), "x.pth")
    done = facekit("import", "x.pth", "o.safetensors", "--as", recipe)
    assert done.code == code and words in done.err
    assert not checkpoint.Path("o.safetensors").exists()


@pytest.mark.slow
def test_no_code_of_a_file_is_run(facekit):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"model.1.weight": Evil()}, "x.pth")
    done = facekit("import", "x.pth", "o.safetensors", "--as", "cyclegan")
    assert done.code == 5 and "run\n" not in done.out


class Harmful:
    """What a hostile pickle holds: reading it would make a file."""

    def __reduce__(self):
        return Path.touch, (Path("harm"),)


@pytest.mark.slow
def test_a_pickled_module_gives_its_weights_and_runs_nothing(facekit, x):
    net = resnet()
    held = {"generator": net, "options": argparse.Namespace(lr=1.0), "harm": Harmful(), "log": defaultdict(list, a=[1])}
    torch.save(held, "latest_net_G_A.pth")
    _, made = translated(facekit, x, "b", "latest_net_G_A.pth", "--as", "cyclegan")
    same(made, net.model, x)
    torch.save(held, "old.pth", _use_new_zipfile_serialization=False)
    assert len(old_pickle.collect("old.pth")) == len(net.state_dict())
    assert not Path("harm").exists()


@pytest.mark.slow
def test_a_pickle_without_weights_is_a_sentence(facekit):
    torch.save({"net": Harmful()}, "x.pt")
    done = facekit("import", "x.pt", "o.safetensors", "--as", "cyclegan")
    assert done.code == 5 and "it holds no weights by name" in done.err
    for held in ([Harmful()], Harmful()):
        torch.save(held, "x.pt")
        with pytest.raises(ValueError, match="holds no weights"):
            old_pickle.collect("x.pt")
    assert not Path("harm").exists()


def test_torchscript_is_not_run():
    torch.jit.script(nn.Linear(1, 1)).save("x.pt")
    with pytest.raises(ValueError, match="TorchScript"):
        old_pickle.collect("x.pt")


def test_a_pickle_changes_no_class():
    evil = b"\x80\x02cargparse\nNamespace\nN}X\x0c\x00\x00\x00dump_patchesI01\ns\x86b."
    with pytest.raises(TypeError):
        old_pickle.Unpickler(io.BytesIO(evil)).load()
    assert old_pickle.Inert.dump_patches is False
