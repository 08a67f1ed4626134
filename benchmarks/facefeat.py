"""How well face features tell faces apart: is each photo known again in another light, mirrored and moved?"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import machine

from facekit.nets import face_embedding
from facekit.ops import augment
from facekit.recipe_api import checkpoint
from facekit.recipes.facefeat import jittered
from facekit.storage import images
from facekit.storage.folder import Folder

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("faces", type=Path, help="a folder of faces as `facekit align` cuts them, each person once")
parser.add_argument("--weights", default="facefeat", help="a run folder, a file or a shipped name")
parser.add_argument("--teacher", type=Path, help="the ONNX model that it was taught by")
parser.add_argument("--limit", type=int, default=400)
parser.add_argument("--size", type=int, default=128)
arguments = parser.parse_args()


def jumble(x: torch.Tensor) -> torch.Tensor:
    """Mirror faces, change their light, move them by up to 6 % and scale them by up to 12 % (jitter 1.5)."""
    return augment.lighting(jittered(x.flip(3), 1.5))


def report(name: str, embed) -> torch.Tensor:
    """Print how well `embed` knows the faces again; return the embeddings of the faces as they are."""
    start = time.perf_counter()
    plain = torch.cat([embed(x) for x in faces.split(32)])
    took = (time.perf_counter() - start) / len(faces)
    changed = torch.cat([embed(x) for x in others.split(32)])
    alike = face_embedding.similarities(plain)
    strangers = (alike.sum() - len(alike)) / (len(alike) * (len(alike) - 1))
    same = F.cosine_similarity(plain, changed).mean()
    print(
        f"{name}: known again {face_embedding.known_again(plain, changed):.3f}, "
        f"cosine {same:.3f} to the same face changed, "
        f"{strangers:.3f} to other faces; {1000 * took:.1f} ms a face"
    )
    return plain


torch.manual_seed(0)
sources = Folder(arguments.faces).sources()[: arguments.limit]
read = (images.resize(images.square(images.read(source.path)), arguments.size) for source in sources)
faces = torch.stack([images.to_tensor(face) for face in read])
others = jumble(faces)
print(machine())
print(f"{len(faces)} faces of {arguments.faces} at {arguments.size} px, {torch.get_num_threads()} threads")
with torch.inference_mode():
    model = checkpoint.load_model(arguments.weights)
    ours = report("student", lambda x: model.recipe.embed(model.nets, x))
    report("grey pixels, 16 px", lambda x: F.adaptive_avg_pool2d(x.mean(1), 16).flatten(1))
    if arguments.teacher:
        params = model.card.params
        net = face_embedding.onnx_embedding(arguments.teacher, params.get("mean", 127.5), params.get("scale", 128.0))
        wanted = report("teacher", lambda x: net(face_embedding.framed(x, *face_embedding.ARCFACE)))
        cosine = F.cosine_similarity(ours, wanted).mean()
        print(
            f"student and teacher: cosine {cosine:.3f}, "
            f"correlation of pairs {face_embedding.agreement(ours, wanted):.3f}"
        )
