"""Weights of frozen nets: what they must be given is checked where it can be known."""

import pytest
import torch
from safetensors.torch import save_file

from facekit.errors import CardError
from facekit.nets import pretrained
from facekit.nets.vgg import VGG


@pytest.fixture
def caffe(tmp_path):
    """A VGG16 whose first filter begins as that of the authors' Caffe file: blue, green, red."""
    state = VGG("vgg16", ("relu1_1",)).state_dict()
    state["features.0.weight"][0, :, 0, 0] = torch.tensor([0.42947057, 0.55037946, 0.4800154])
    save_file(state, tmp_path / "bgr.safetensors")
    save_file(
        {**state, "features.0.weight": state["features.0.weight"].flip(1).contiguous()}, tmp_path / "rgb.safetensors"
    )
    return tmp_path


@pytest.mark.parametrize(("file", "right"), [("bgr", "caffe-bgr"), ("rgb", "caffe")])
def test_caffe_weights_say_in_which_order_they_take_colours(caffe, file, right):
    source = str(caffe / f"{file}.safetensors")
    for preprocessing in ("torchvision", "caffe", "caffe-bgr"):
        if preprocessing == right:
            pretrained.vgg("vgg16", ("relu1_1",), source, preprocessing)
            continue
        with pytest.raises(CardError, match=f"expect preprocessing {right}") as caught:
            pretrained.vgg("vgg16", ("relu1_1",), source, preprocessing)
        assert caught.value.hint == f"--set params.preprocessing={right}"


def test_both_orders_of_the_same_weights_see_the_same(caffe):
    x = torch.rand(1, 3, 8, 8) * 2 - 1
    blue, red = (
        pretrained.vgg("vgg16", ("relu1_1",), str(caffe / f"{file}.safetensors"), preprocessing)(x)["relu1_1"]
        for file, preprocessing in (("bgr", "caffe-bgr"), ("rgb", "caffe"))
    )
    assert torch.allclose(blue, red, atol=1e-3)


def test_published_files_are_known_by_their_digest(tmp_path, monkeypatch):
    import hashlib

    path = tmp_path / "vgg.pth"
    torch.save(VGG("vgg16", ("relu1_1",)).state_dict(), path)
    known = {hashlib.sha256(path.read_bytes()).hexdigest()[:8]: "caffe-bgr"}
    monkeypatch.setattr(pretrained, "PUBLISHED", known)
    with pytest.raises(CardError, match="expect preprocessing caffe-bgr, not torchvision"):
        pretrained.vgg("vgg16", ("relu1_1",), str(path))
    assert pretrained.vgg("vgg16", ("relu1_1",), str(path), "caffe-bgr").bgr
