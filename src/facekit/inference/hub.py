"""Trained weights on the Hugging Face Hub: half-precision weights and a model card, in one commit."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import CardError, FacekitError, MissingError
from ..recipe_api import checkpoint
from ..runtime import console
from ..runtime.optional import needs
from ..storage import card, files, yaml_text
from .export_plan import Outcome

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")  # to a file that is not uploaded
TAGS = ["facekit", "image-to-image", "face", "gan"]


def push(
    weights: str, repository: str, private: bool = False, recipe: str | None = None, dry_run: bool = False
) -> Outcome:
    """Upload weights and their card to `repository` (USER/NAME), which is created where it is not there.

    The files are `model.safetensors`, in 16 bits, and `README.md`. Log in with `hf auth login` or HF_TOKEN; of the
    token facekit only asks whether there is one. Raises CardError for a name that is none,
    MissingError without huggingface_hub or a login, FacekitError where the Hub refuses or cannot be reached.
    """
    if not NAME.fullmatch(repository):
        raise CardError(f"{repository!r} is no repository", "--hub USER/NAME, such as --hub me/photo-to-anime")
    model = checkpoint.load_model(weights, recipe=recipe)
    readme = model_card(model, repository)
    if dry_run:
        text = f"export: {model.path} to the repository {repository}, with this card:\n\n{readme}"
        return Outcome(text, {"repository": repository, "card": readme})
    with needs("hub"):
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    api = huggingface_hub.HfApi(library_name="facekit")
    if not api.token and not huggingface_hub.get_token():
        raise MissingError("there is no login for the Hugging Face Hub", "hf auth login, or set HF_TOKEN")
    with tempfile.TemporaryDirectory(prefix="facekit-") as place:
        folder = Path(place)
        values = without_places(checkpoint.saved_card(model.path))
        checkpoint.save_model(folder / checkpoint.FILE, nn.ModuleDict(dict(model.nets.items())), values, half=True)
        files.write_text(folder / "README.md", readme)
        try:
            api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
            done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload weights of facekit")
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            reason = (str(error).strip().splitlines() or ["refused"])[0]
            hint = "hf auth whoami: may this account write there?" if status in (401, 403) else "try again later"
            raise FacekitError(f"the Hub did not take {repository}: {reason}", hint) from error
        except (OSError, RuntimeError) as error:  # no network, and what huggingface_hub makes of it
            raise FacekitError(f"the Hub cannot be reached: {error}", "check the network, and try again") from error
    revision = str(getattr(done, "oid", "") or "")
    console.note(f"export: others use it by facekit translate photos/ out/ --weights hf://{repository}")
    address = f"hf://{repository}" + (f"@{revision}" if revision else "")
    return Outcome(f"export: {address}", {"repository": repository, "revision": revision, "weights": address})


def model_card(model: checkpoint.Model, repository: str) -> str:
    """Return the README of a repository: what the Hub reads, how to use it, and the model card beside the weights."""
    about = model.path.with_suffix(".md")
    head: dict[str, Any] = {"library_name": "facekit", "pipeline_tag": "image-to-image", "tags": TAGS}
    targets = ", ".join(model.directions)
    text = LINK.sub(r"\1", about.read_text(encoding="utf-8")) if about.is_file() else _plain_card(model)
    use = f"## Use\n\n    facekit translate photos/ out/ --weights hf://{repository}\n\nIt translates to: {targets}."
    return f"---\n{yaml_text.dump(head)}---\n\n{text.strip()}\n\n{use}\n"


def _plain_card(model: checkpoint.Model) -> str:
    """Return what is known of weights that nobody has written a card for."""
    values = without_places(card.plain(model.card))
    values.pop("made", None)
    lines = (
        f"# {model.card.recipe}, {model.card.data.size} px",
        "Nobody has written down yet what these weights were trained on, under which licence that is, and what they do "
        "badly. Please do so here.",
        "## How they were trained",
        f"```yaml\n{yaml_text.dump(values)}```",
    )
    return "\n\n".join(lines)


def without_places(value: Any) -> Any:
    """Return a card's values with the last part of every absolute path in place of the path."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    absolute = isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute())
    return Path(value).name if absolute else value
