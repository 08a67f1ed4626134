"""Drawings with edge-smoothed partners, from a folder or computed (CartoonGAN: Chen, Lai, Liu, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..runtime import console
from ..storage import images
from ..storage.card import Data
from ..storage.folder import Folder, output_names
from ..storage.listing import composed
from . import edge_smoothing
from .dataset import Layout, find_folders, open_layout
from .reader import Reader, Sample


@dataclass(frozen=True)
class SmoothedReader(Reader):
    """Reads a drawing and its edge-smoothed partner; the entries are `NAME` and `NAME_smooth`.

    Without `partners` the drawing is smoothed as it is read, at the size that it is read at.
    """

    partners: Mapping[Path, Path] | None = None

    def read(self, path: Path, size: int) -> Sample:
        """Decode both to squares of `size` px; raises InputError where one is broken or has no partner."""
        sample = super().read(path, size)
        if self.partners is None:
            smooth = edge_smoothing.smooth(sample[self.name])[0]
        elif path in self.partners:
            smooth = np.asarray(images.resize(images.square(images.read(self.partners[path])), size))
        else:
            raise InputError(f"{path} has no smoothed partner", "create them with facekit smooth-edges")
        return {**sample, f"{self.name}_smooth": smooth}


def open_smoothed(data: Data, folder: str | None) -> Layout:
    """Find two folders of images, and for each drawing of domain b its partner in `folder` (None: smoothed on reading).

    A partner has its drawing's name in the same sub-folder, as `facekit smooth-edges` writes it; the type may differ.
    Raises InputError where the folder or a training image's partner is missing.
    """
    layout = open_layout(data)
    if folder is None:
        console.note("smoothed drawings: computed on reading; --set params.smooth=DIR reads them from a folder")
        return replace(layout, readers={"b": SmoothedReader("b")})
    drawings = find_folders(data).train["b"]
    hint = f"facekit smooth-edges {drawings} {folder}"
    try:
        smooth = Folder(folder)
    except InputError as error:
        raise InputError(f"no smoothed drawings: {error.message}", hint) from error
    there = {composed(str(Path(name).with_suffix(""))): smooth.path / name for name in smooth.names}
    sources = Folder(drawings).sources()
    named = {name: composed(out) for name, out in output_names(sources, "").items()}
    partners = {s.path: there[named[s.name]] for s in sources if named[s.name] in there}
    missing = [path for path in layout.train["b"] if path not in partners]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(layout.train['b'])} drawings have no smoothed partner in {folder}: {missing[0]}",
            hint,
        )
    console.note(f"smoothed drawings: {len(partners)} from {folder}")
    return replace(layout, readers={"b": SmoothedReader("b", partners)})
