"""What is written down of an image that was kept, and of one that could not be had."""

from __future__ import annotations

import json
from typing import Any

from ..storage import provenance
from .post import Post
from .url_guard import shown
from .validate import Proof


def failure(post: Post, stage: str, reason: str, state: str) -> str:
    """Return a line of `failed.jsonl`; `again` says that a later run tries it again."""
    path = post.extra.get("copied_from") or shown(post.url or "") or post.page
    row = {"path": path, "stage": stage, "reason": reason, "id": post.id, "page": post.page, "again": state == "again"}
    return json.dumps(row, ensure_ascii=False)


def describe(post: Post, proof: Proof, name: str) -> dict[str, Any]:
    """Return an image's line of the manifest. Sizes are in px, `time` is when it was fetched, UTC."""
    told = {
        "file": name,
        "id": post.id,
        "md5": proof.md5,
        "source": post.source,
        "artist": post.artist,
        "rating": post.rating,
        "tags": list(post.tags),
        "page": post.page,
        "time": provenance.moment(),
        "width": proof.width,
        "height": proof.height,
        "bytes": proof.bytes,
        "score": post.score,
        "created": post.created,
        "label": post.label or None,
    }
    return {**post.extra, **{key: value for key, value in told.items() if value not in (None, "", [])}}
