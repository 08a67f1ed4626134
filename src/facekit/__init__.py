"""facekit: turn face photos into anime, cartoon and game-character faces, with models that people train themselves.

The public functions are those of the commands: `crawl`, `align`, `train`, `translate`, `score_fid` and so on; and
`load`, which gives a trained model as an object that maps a PIL image to a PIL image.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "crawl": "commands.crawl",
    "align": "commands.align",
    "clean": "commands.clean",
    "pack": "commands.pack",
    "smooth_edges": "commands.smooth_edges",
    "pairs": "commands.pairs",
    "train": "commands.train",
    "train_segnet": "commands.train_segnet",
    "train_detector": "commands.train_detector",
    "ablate": "commands.ablate",
    "translate": "commands.translate",
    "serve": "commands.serve",
    "demo": "commands.demo",
    "sample": "commands.sample",
    "compare": "commands.compare",
    "export": "commands.export",
    "watch": "commands.watch",
    "weights": "commands.weights",
    "score_fid": "commands.score_fid",
    "load": "inference.translator",
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from .commands.ablate import ablate as ablate
    from .commands.align import align as align
    from .commands.clean import clean as clean
    from .commands.compare import compare as compare
    from .commands.crawl import crawl as crawl
    from .commands.demo import demo as demo
    from .commands.export import export as export
    from .commands.pack import pack as pack
    from .commands.pairs import pairs as pairs
    from .commands.sample import sample as sample
    from .commands.score_fid import score_fid as score_fid
    from .commands.serve import serve as serve
    from .commands.smooth_edges import smooth_edges as smooth_edges
    from .commands.train import train as train
    from .commands.train_detector import train_detector as train_detector
    from .commands.train_segnet import train_segnet as train_segnet
    from .commands.translate import translate as translate
    from .commands.watch import watch as watch
    from .commands.weights import weights as weights
    from .inference.translator import load as load


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used, so that `import facekit` stays instant."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'facekit' has no attribute {name!r}")
