"""TorchScript files of unknown origin: run them only if their code does nothing but compute.

TorchScript code runs while a file is loaded and whenever its net is called, and it has operators that write files
(`torch.save`, `torch.from_file`). `load` therefore reads the code in the archive first and accepts a fixed list of
operators. Operators can only be reached by name, so a name on no list is enough to refuse a file, wherever it stands.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

from ..errors import CardError

_COMPUTE = """
    RaiseException NumToTensor TupleUnpack unchecked_cast annotate device dtype type layout name mode format range len
    list str Int Float Bool IntImplicit FloatImplicit ScalarImplicit Size is_cuda is_floating_point
    is_autocast_enabled is_grad_enabled is_nested requires_grad __contains__ __is__ __isnot__ __not__ __and__ __or__
    __xor__ __getitem__ __range_length __derive_index append extend insert copy keys values items get pop join
    _convolution conv1d conv2d conv3d conv_transpose2d convolution batch_norm _batch_norm_impl_index instance_norm
    group_norm layer_norm native_layer_norm rms_norm linear matmul mm bmm addmm baddbmm einsum dot outer bilinear relu
    relu_ relu6 relu6_ leaky_relu leaky_relu_ prelu elu elu_ selu selu_ gelu gelu_ silu silu_ mish mish_ sigmoid
    sigmoid_ hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ tanh tanh_ softplus softmax log_softmax
    threshold threshold_ dropout dropout_ feature_dropout feature_dropout_ bernoulli_ embedding glu
    scaled_dot_product_attention _native_multi_head_attention _transformer_encoder_layer_fwd max_pool2d
    max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d adaptive_avg_pool1d adaptive_max_pool2d pad constant_pad_nd
    reflection_pad2d replication_pad2d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d grid_sampler
    grid_sampler_2d affine_grid_generator pixel_shuffle pixel_unshuffle im2col add add_ sub sub_ rsub mul mul_ div
    div_ floor_divide floordiv true_divide remainder fmod pow pow_ square sqrt sqrt_ rsqrt exp exp_ expm1 log log_
    log1p log2 abs abs_ neg neg_ sign sin cos tan atan atan2 erf reciprocal floor ceil round trunc frac clamp clamp_
    clamp_min clamp_min_ clamp_max clamp_max_ clip addcmul addcdiv lerp positive negative minimum maximum max min amax
    amin argmax argmin sum mean std var var_mean std_mean prod norm linalg_vector_norm cumsum all any eq ne lt le gt
    ge isnan isinf isfinite logical_and logical_or logical_not where masked_fill masked_fill_ topk sort argsort
    cosine_similarity cdist t transpose permute reshape view view_as reshape_as flatten unflatten squeeze squeeze_
    unsqueeze unsqueeze_ cat concat stack split split_with_sizes chunk unbind select slice narrow index index_select
    gather scatter expand expand_as repeat repeat_interleave tile roll flip movedim swapaxes moveaxis contiguous clone
    detach detach_ numel size stride dim to type_as cpu cuda zeros zeros_like ones ones_like empty empty_like full
    full_like arange linspace eye tensor scalar_tensor new_zeros new_ones new_full new_empty fill_ zero_ copy_
    meshgrid tril triu item as_tensor grad set is_contiguous
"""
ALLOWED = frozenset(_COMPUTE.split())
SPECIAL = frozenset(["classes", "print", "fork"])  # no operators, but reach further than a net needs
PARTS = re.compile(r"(code/.+\.py|code/.+\.debug_pkl|(data|constants|traced_inputs)(\.pkl|/\w+)|version|byteorder|"
                   r"\.format_version|\.storage_alignment|\.data/\w+)")  # fmt: skip
CODE = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
REASON = "a TorchScript file is a program: it can write files of its choice"


def load(path: Path, device: str, trusted: bool) -> Any:
    """Return a TorchScript file's net in evaluation mode.

    `trusted` loads it whatever it does. Raises CardError for a file that is not trusted and does more than compute,
    and what torch raises for one that is damaged.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        file = str(path) if trusted else checked(path)
        return torch.jit.load(file, map_location=device).eval()


def checked(path: Path) -> io.BytesIO:
    """Return a copy of a TorchScript archive with exactly the members that were checked; raises CardError as `load`."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise _refusal(path, "it holds two members of the same name")
        for name in names:
            if not PARTS.fullmatch(name.partition("/")[2]):
                raise _refusal(path, f"it holds a member {name[:60]!r}")
            data = archive.read(name)
            if name.endswith(".py"):
                _check_code(path, data)
            out.writestr(name, data)
    copy.seek(0)
    return copy


def _check_code(path: Path, code: bytes) -> None:
    from ..ops.private_torch import operator_names

    operators = operator_names()
    if operators is None:
        raise _refusal(path, "this version of torch cannot say which operators it uses")
    found = {word.decode() for word in CODE.findall(code)}
    unknown = sorted((found & operators - ALLOWED) | found & SPECIAL)
    if unknown:
        raise _refusal(path, f"it uses {', '.join(unknown[:5])}")


def _refusal(path: Path, what: str) -> CardError:
    return CardError(
        f"{path}: {REASON}, and {what}",
        "export the net to ONNX, or give --allow-torchscript if you trust where the file comes from",
    )
