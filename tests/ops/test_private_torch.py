"""Private names of torch stand in one file, and facekit works without them."""

import re
from pathlib import Path

import pytest
import torch

import facekit
from facekit.errors import CardError
from facekit.ops import private_torch
from facekit.scoring import torchscript

ROOT = Path(facekit.__file__).parent
PRIVATE = re.compile(
    r"\btorch(\.\w+)*\._(?!_version__)\w+|(from|import) torch(\.\w+)*\._\w+|from torch[\w.]* import .*\b_\w+"
    r"|\._(cdata|version|base|compiled_call_impl|backward_hooks|parameters|buffers)\b|\b_VF\b|\bF\._\w+"
)


def private_names(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if PRIVATE.search(line)]


def test_private_names_of_torch_stand_in_one_file():
    found = {path.relative_to(ROOT).as_posix(): private_names(path.read_text()) for path in ROOT.rglob("*.py")}
    assert [name for name, lines in found.items() if lines] == ["ops/private_torch.py"]


@pytest.mark.parametrize(
    "line",
    ["torch._foreach_mul_(x, 2)", "torch._C._x()", "import torch._dynamo", "x._cdata", "torch.utils._pytree.tree_map",
     "from torch.nn.modules.utils import _pair", "F._canonical_mask(x)"],
)  # fmt: skip
def test_the_search_finds_private_names(line):
    assert private_names(line)


@pytest.mark.parametrize("missing", ["name", "library", "memory"])
def test_without_nnpack_convolution_is_the_same(missing, monkeypatch):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(1, 16, 20, 20), torch.randn(32, 16, 3, 3), torch.randn(32)
    expected = private_torch.nnpack_conv2d(x, weight, bias, 1)

    def no_memory(*arguments):
        raise RuntimeError("NNPACK SpatialConvolution_updateOutput failed")

    if missing == "name":
        monkeypatch.delattr(torch, "_nnpack_spatial_convolution")
    elif missing == "library":
        monkeypatch.setattr(torch.backends.nnpack, "is_available", lambda: False)
    else:
        monkeypatch.setattr(torch, "_nnpack_spatial_convolution", no_memory)
    found = private_torch.nnpack_conv2d(x, weight, bias, 1)
    assert torch.equal(found, torch.conv2d(x, weight, bias, padding=1))
    assert (found - expected).abs().max() < 1e-4 * found.abs().max()


def test_torchscript_is_refused_where_torch_does_not_list_its_operators(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    assert torchscript.load(path, "cpu", trusted=False)
    monkeypatch.delattr(torch._C, "_jit_get_all_schemas")
    with pytest.raises(CardError, match="cannot say which operators"):
        torchscript.load(path, "cpu", trusted=False)
    assert torchscript.load(path, "cpu", trusted=True)
