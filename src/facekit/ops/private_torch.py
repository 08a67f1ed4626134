"""The only file that uses private names of torch: each with its reason, and with a public way where torch lacks it."""

from __future__ import annotations

import torch
from torch import Tensor, _utils

TENSOR_BUILDERS = {
    ("torch._utils", name): getattr(_utils, name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    if hasattr(_utils, name)
}
"""What files of torch name where a tensor stands. Private, as no public function builds one from a storage's parts."""


def nnpack_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int | tuple[int, ...]) -> Tensor:
    """Convolve x [N, C, H, W] with weight [K, C, r, r], stride 1, through NNPACK; through torch where that is missing.

    Why private: torch chooses oneDNN for all of these convolutions, and no public function or setting asks for NNPACK,
    whose Winograd form needs fewer products.
    """
    if has_nnpack():
        try:
            return torch._nnpack_spatial_convolution(x, weight, bias, padding)
        except RuntimeError:  # NNPACK could not allocate its working memory
            pass
    return torch.conv2d(x, weight, bias, padding=padding)


def has_nnpack() -> bool:
    """Return whether this build of torch has NNPACK and this processor can run it."""
    available = torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]  # the call initialises NNPACK
    return available and hasattr(torch, "_nnpack_spatial_convolution")


def operator_names() -> frozenset[str] | None:
    """Return the names of all operators of TorchScript, without namespaces; None where torch does not list them.

    Why private: torch registers its operators in C++, and its public interface lists only those already used.
    """
    try:
        schemas = torch._C._jit_get_all_schemas()
    except AttributeError:
        return None
    return frozenset(schema.name.rpartition("::")[2] for schema in schemas)
