"""LightCNN and ONNX embeddings: counts, published files' layout, parity with onnxruntime, gradients to the image."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from facekit.errors import CardError, MissingError
from facekit.nets import face_embedding, lightcnn

SHARED = Path(os.environ.get("FACEKIT_SHARED", Path(__file__).parents[3] / "shared"))
MOBILEFACENET = SHARED / "weights" / "mobilefacenet-128.onnx"
KINDS = sorted(lightcnn.LIGHTCNN)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("lightcnn-9", 5_480_864), ("lightcnn-29", 12_573_280), ("lightcnn-29v2", 10_475_872)],
)
def test_parameter_count_and_embedding_of_any_size(kind, expected):
    with torch.device("meta"):
        net = lightcnn.LIGHTCNN[kind]()
        assert count(net) == expected
        assert net(torch.empty(2, 3, 112, 112)).shape == net(torch.empty(2, 3, 128, 128)).shape == (2, 256)


def test_parameters_have_the_names_of_the_published_code():
    with torch.device("meta"):
        nine, deep = lightcnn.LightCNN9().state_dict(), lightcnn.LightCNN29v2().state_dict()
    assert {"features.0.filter.weight", "features.2.conv_a.filter.bias", "features.7.conv.filter.weight"} <= set(nine)
    assert nine["fc1.filter.weight"].shape == (512, 8192)
    assert {"conv1.filter.weight", "block4.3.conv2.filter.bias", "group4.conv_a.filter.weight"} <= set(deep)
    assert deep["fc.weight"].shape == (256, 8192)
    assert not any(name.startswith(("pool", "fc2")) for name in [*nine, *deep])


def test_mfm_is_the_larger_half():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    made = lightcnn.mfm(x)
    torch.testing.assert_close(made, torch.maximum(x[:, :3], x[:, 3:]))
    (ours,) = torch.autograd.grad(made.square().sum(), x)
    (plain,) = torch.autograd.grad(torch.maximum(x[:, :3], x[:, 3:]).square().sum(), x)
    torch.testing.assert_close(ours, plain)


def test_grey_is_that_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    wanted = np.asarray(Image.fromarray(pixels).convert("L")) / 255
    assert np.abs(lightcnn.grey(x)[0, 0].numpy() - wanted).max() < 1 / 255


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("classes", [3, 0])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_published_layout_loads(tmp_path, prefix, classes, wrapped):
    torch.manual_seed(0)
    net = lightcnn.LightCNN9()
    state = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    if classes:
        state |= {f"{prefix}fc2.weight": torch.zeros(classes, 256), f"{prefix}fc2.bias": torch.zeros(classes)}
    path = tmp_path / "LightCNN_9Layers_checkpoint.pth.tar"
    torch.save({"epoch": 80, "arch": "LightCNN-9", "state_dict": state, "prec1": 0.0} if wrapped else state, path)
    loaded = face_embedding.lightcnn("lightcnn-9", path)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_file_of_another_net_is_refused(tmp_path):
    path = tmp_path / "nine.safetensors"
    save_file(lightcnn.LightCNN9().state_dict(), path)
    with pytest.raises(MissingError, match=r"LightCNN29: conv1\.filter\.weight is missing"):
        face_embedding.lightcnn("lightcnn-29", path)
    plain = lightcnn.LightCNN9().state_dict() | {"head.weight": torch.zeros(1)}
    save_file(plain, path)
    with pytest.raises(MissingError, match=r"has no head\.weight"):
        face_embedding.lightcnn("lightcnn-9", path)
    with pytest.raises(MissingError, match="no weights file"):
        face_embedding.lightcnn("lightcnn-9", tmp_path / "none.pth")
    with pytest.raises(CardError, match="no face net"):
        face_embedding.lightcnn("lightcnn-4", path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_colour_image(kind):
    torch.manual_seed(0)
    x = (torch.rand(1, 3, 48, 48) * 2 - 1).requires_grad_()
    net = lightcnn.LIGHTCNN[kind]().requires_grad_(False).eval()
    net(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().sum((0, 2, 3)) > 0).all()


def make_onnx(path: Path, batch: int | str = "n", channels: int = 3, inputs: int = 1, shape=(1, -1)) -> Path:
    """A small recognition model: convolution, batch normalisation, PReLU, reshape or flatten, linear."""
    rng = np.random.default_rng(0)

    def weight(name, *size):
        return numpy_helper.from_array(rng.uniform(0.5, 1, size).astype(np.float32) * rng.choice([-1, 1], size), name)

    spread = numpy_helper.from_array(np.ones(4, np.float32), "v")
    weights = [weight("w", 4, channels, 3, 3), weight("s", 4), weight("b", 4), weight("m", 4), spread]
    weights += [weight("slope", 4, 1, 1), weight("g", 5, 4 * 8 * 8)]
    weights = [numpy_helper.from_array(numpy_helper.to_array(w).astype(np.float32), w.name) for w in weights]
    if shape:
        weights.append(numpy_helper.from_array(np.array(shape, np.int64), "shape"))
        flat = helper.make_node("Reshape", ["p", "shape"], ["f"])
    else:
        flat = helper.make_node("Flatten", ["p"], ["f"])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["d"]),
        helper.make_node("PRelu", ["d", "slope"], ["p"]),
        flat,
        helper.make_node("Gemm", ["f", "g"], ["y"], transB=1),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, 16, 16])]
    given += [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1]) for i in range(1, inputs)]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "toy", given, [out], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), str(path))
    return path


def by_runtime(path: Path, x: torch.Tensor, mean: float = 127.5, scale: float = 128.0) -> torch.Tensor:
    """Embeddings of images at the model's own size, one by one."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = ((x + 1) * 127.5 - mean) / scale
    name = session.get_inputs()[0].name
    return torch.cat([torch.from_numpy(session.run(None, {name: image.numpy()})[0]) for image in pixels.split(1)])


@pytest.mark.parametrize(
    ("batch", "shape"),
    [("n", None), ("n", (-1, 256)), (1, (1, -1)), (1, (1, 256)), (1, None)],
    ids=["flatten", "reshape", "one", "one of 256", "one, flatten"],
)
def test_an_onnx_model_gives_what_onnxruntime_gives_at_any_batch(tmp_path, batch, shape):
    path = make_onnx(tmp_path / "toy.onnx", batch, shape=shape)
    net = face_embedding.onnx_embedding(path)
    torch.manual_seed(0)
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    assert (net.size, net.features, net.alone) == (16, 5, False)
    torch.testing.assert_close(net(x), by_runtime(path, x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(x[:1]), net(x)[:1], rtol=1e-4, atol=1e-4)
    assert net(torch.rand(2, 3, 40, 40)).shape == (2, 5)
    own = face_embedding.onnx_embedding(path, mean=0, scale=1)
    torch.testing.assert_close(own(x), by_runtime(path, x, 0, 1), rtol=1e-4, atol=2e-2)


def test_a_graph_that_mixes_the_images_of_a_batch_is_run_one_by_one(tmp_path):
    path = make_onnx(tmp_path / "toy.onnx", 1, shape=(-1, 256))
    model = onnx.load(str(path))
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("ReduceMean", ["z"], ["y"], axes=[0], keepdims=1))
    onnx.save(model, str(path))
    net = face_embedding.onnx_embedding(path)
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    assert net.alone
    torch.testing.assert_close(net(x), by_runtime(path, x), rtol=1e-4, atol=1e-4)


def test_an_onnx_model_is_frozen_and_lets_gradients_through(tmp_path):
    net = face_embedding.onnx_embedding(make_onnx(tmp_path / "toy.onnx"))
    assert not net.train().training
    assert not any(p.requires_grad for p in net.parameters())
    net = net.double()
    x = (torch.rand(1, 3, 16, 16, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(net, (x,), atol=1e-4)


def test_files_that_are_not_a_recognition_model_are_refused(tmp_path):
    with pytest.raises(MissingError, match="no ONNX file"):
        face_embedding.onnx_embedding(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(MissingError, match="cannot be used"):
        face_embedding.onnx_embedding(tmp_path / "broken.onnx")
    whole = make_onnx(tmp_path / "toy.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MissingError, match="cannot be used"):
        face_embedding.onnx_embedding(tmp_path / "cut.onnx")
    with pytest.raises(MissingError, match="not one image"):
        face_embedding.onnx_embedding(make_onnx(tmp_path / "grey.onnx", channels=1))
    with pytest.raises(MissingError, match="not one image"):
        face_embedding.onnx_embedding(make_onnx(tmp_path / "two.onnx", inputs=2))


def test_a_model_whose_weights_lie_elsewhere_is_refused(tmp_path):
    model = onnx.load(make_onnx(tmp_path / "toy.onnx"))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../elsewhere.bin")
    (tmp_path / "toy.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CardError, match="not a file beside it"):
        face_embedding.onnx_embedding(tmp_path / "toy.onnx")


@pytest.mark.slow
@pytest.mark.skipif(not MOBILEFACENET.exists(), reason=f"{MOBILEFACENET} is not here")
def test_mobilefacenet_gives_what_onnxruntime_gives():
    net = face_embedding.onnx_embedding(MOBILEFACENET)
    torch.manual_seed(0)
    x = torch.rand(3, 3, 112, 112) * 2 - 1
    assert (net.size, net.features, net.alone) == (112, 128, False)
    torch.testing.assert_close(net(x), by_runtime(MOBILEFACENET, x), rtol=1e-4, atol=1e-4)
    face = (torch.rand(1, 3, 96, 96) * 2 - 1).requires_grad_()
    net(face).square().sum().backward()
    assert torch.isfinite(face.grad).all()
    assert face.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("framing", "side", "apart", "top"),
    [(face_embedding.ARCFACE, 112, 35.24, 51.6), (face_embedding.LIGHTCNN_FRAME, 128, None, 40.0)],
    ids=["arcface", "lightcnn"],
)
def test_framing_brings_the_eyes_of_an_aligned_face_to_where_the_net_wants_them(framing, side, apart, top):
    from facekit.faces import template

    eyes = template(256)[:2]
    x = torch.zeros(1, 3, 256, 256)
    for left, down in eyes.round().astype(int):
        x[:, :, down - 2 : down + 2, left - 2 : left + 2] = 1
    seen = face_embedding.framed(x, *framing)[0, 0]
    down, left = torch.nonzero(seen > 0.5).float().add(0.5).T * side / 256
    right = left > side / 2
    assert down.mean().item() == pytest.approx(top, abs=0.7)
    if apart:
        assert (left[right].mean() - left[~right].mean()).item() == pytest.approx(apart, abs=0.7)


def test_known_again_and_agreement():
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    assert face_embedding.known_again(x, 3 * x) == 1
    assert face_embedding.known_again(x, x.roll(1, 0)) == 0
    assert face_embedding.known_again(x, torch.cat([x[:3], -x[3:]])) == pytest.approx(0.5)
    turned = x @ torch.linalg.qr(torch.randn(4, 4))[0]
    assert face_embedding.agreement(x, turned) == pytest.approx(1, abs=1e-4)
    assert face_embedding.agreement(x, torch.randn(6, 4)) < 0.9
