"""Run cards: YAML files that hold every setting of a run and, once it has finished, its results."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveInt, Tag, ValidationError, model_validator

from ..errors import CardError
from . import yaml_text
from .remote import is_remote

FORMAT = 1
NAME = "card.yaml"
UNFINISHED = "card.unfinished.yaml"


class Section(BaseModel):
    """A section of a card; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Data(Section):
    """Which images, at which size."""

    root: str | None = Field(None, description="a folder with both domains: trainA/ trainB/, or a/ b/")
    a: str | None = Field(None, description="the folder of domain a")
    b: str | None = Field(None, description="the folder of domain b")
    labels: str | None = Field(None, description="a CSV, JSON Lines or CelebA attribute file on the images of root")
    size: int = Field(256, ge=8, description="edge of a training image, px")
    load_size: int | None = Field(
        None, ge=8, description="edge before the random crop, px; if absent, set by the recipe"
    )
    flip: bool = Field(True, description="mirror images at random")
    batch: int = Field(1, ge=1, description="images per domain, step and process")
    holdout: int | None = Field(
        None,
        ge=0,
        description="images per domain kept out of training for previews; a sixteenth, at most 16, if absent",
    )
    split: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        None, description="shares of training, validation and test images where no folder holds them: [8, 1, 1]"
    )
    limit: int | None = Field(None, ge=1, description="use only the first so many images of each domain")


class Domains(Section):
    """What the two domains are called; `translate --to` takes these names."""

    a: str = Field("a", description="name of the first domain")
    b: str = Field("b", description="name of the second domain")

    @model_validator(mode="after")
    def differ(self) -> Domains:
        """Refuse the same name for both domains."""
        if self.a == self.b:
            raise ValueError("both have the same name")
        return self


class Loss(Section):
    """Weight and schedule of one loss term."""

    weight: float | None = Field(None, description="factor of the loss; 0 drops it and its cost")
    every: int | None = Field(None, ge=1, description="compute only every n-th step, with n times the weight")
    start: int | None = Field(None, ge=0, description="first step that computes the term")
    stop: int | None = Field(None, ge=0, description="first step that leaves the term out")


def _kind_of_loss(value: Any) -> str:
    return "section" if isinstance(value, (Mapping, Loss)) else "weight"


Weighted = Annotated[Annotated[float, Tag("weight")] | Annotated[Loss, Tag("section")], Discriminator(_kind_of_loss)]


class PhaseOptim(Section):
    """Optimiser settings of one phase, where they differ from the others'."""

    lr: float | None = Field(None, gt=0, description="learning rate of this phase")
    betas: tuple[float, float] | None = Field(None, description="Adam's decay rates in this phase")
    weight_decay: float | None = Field(None, ge=0, description="L2 term in this phase")


class Optim(Section):
    """Adam. `weight_decay` is its coupled L2 term, not AdamW's."""

    lr: float = Field(2e-4, gt=0, description="learning rate")
    betas: tuple[float, float] = Field((0.5, 0.999), description="decay rates of Adam's moving averages")
    weight_decay: float = Field(0.0, ge=0, description="L2 term that Adam adds to the gradient")
    phases: dict[str, PhaseOptim] = Field(default_factory=dict, description="by phase: values that differ")


class Run(Section):
    """How long the run is, how it computes, and what it saves."""

    steps: int | None = Field(None, ge=0, description="length of the run in steps")
    epochs: int | None = Field(None, ge=1, description="length of the run in passes over the larger domain")
    precision: Literal["fp32", "bf16", "fp64"] = Field("fp32", description="bf16 is autocast; fp64 is for tests")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    recompute: Literal["auto"] | bool = Field(
        "auto", description="recompute cheap activations in the backward pass to save memory; auto: if memory is short"
    )
    compile: bool = Field(False, description="torch.compile the nets that translate: minutes at first, then faster")
    cpu_kernels: bool = Field(
        True, description="facekit's own convolutions and norms on the processor (docs/cpu-kernels.md)"
    )
    threads: int | None = Field(None, ge=1, description="processor threads; as many as cores are free, if absent")
    graphs: bool = Field(False, description="ignored: cards written by facekit 0.1 may have it")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the weight average that is saved; 0: none")
    save_every: int = Field(1000, ge=1, description="steps between saves, each with a preview")
    validate_every: int = Field(
        0, ge=0, description="steps between scores on held-out images, which keep best.safetensors; 0: none"
    )
    validate_by: Literal["KID", "FID"] = Field("KID", description="the score of which the lowest is best")
    validate_features: str = Field(
        "clean-fid", description="the net that the score looks through: clean-fid (downloaded), or an ONNX file"
    )
    keep_best: int = Field(1, ge=1, le=100, description="how many of the best weights are kept; more than 1: in best/")
    patience: int = Field(0, ge=0, description="scores without a better one after which the run ends; 0: never")
    log_every: int = Field(50, ge=1, description="steps between lines of log.jsonl")
    init: str | None = Field(None, description="a run folder, weights file or name whose weights the run starts from")


class TrainCard(Section):
    """The card of `facekit train`."""

    facekit: Literal[1] = Field(1, description="format of the card")
    command: Literal["train"] = Field("train", description="the command that the card is for")
    extends: str | None = Field(None, description="a card whose values this one starts from, relative to this file")
    recipe: str = Field(description="the method: a recipe's name, or a Python file")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of all random numbers")
    data: Data = Data()
    domains: Domains = Domains()
    params: dict[str, Any] = Field(default_factory=dict, description="the recipe's parameters")
    losses: dict[str, Weighted] = Field(default_factory=dict, description="weights of the terms; 0 drops a term")
    optim: Optim = Optim()
    run: Run = Run()
    made: dict[str, Any] | None = Field(None, description="results of the run; ignored on reading")


class FlatCard(Section):
    """The card of a command whose options are flat (align, translate)."""

    facekit: Literal[1] = 1
    command: str
    extends: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict, description="digests of what else the result depends on")
    made: dict[str, Any] | None = None


Model = TypeVar("Model", bound=BaseModel)
SECTIONS = ("data", "domains", "params", "losses", "optim", "run", "options", "inputs")


def load(path: Path) -> dict[str, Any]:
    """Read a card with its parents merged in; `made` is left out.

    Raises CardError for a missing file, YAML that does not parse, a newer format, or `extends` in a loop.
    """
    chain: list[dict] = []
    seen: list[str] = []
    here: Path | None = Path(path)
    while here is not None:
        real = os.path.realpath(here)  # unlike Path.resolve it takes links that lead to themselves
        if real in seen:
            raise CardError(f"cards extend each other in a loop: {here}", "remove one `extends`")
        seen.append(real)
        values = _read(here)
        parent = values.pop("extends", None)
        if not isinstance(parent, str | None) or "\0" in (parent or ""):
            raise CardError(f"{here}: 'extends' is not the name of a card (got {parent!r})", "name one card")
        if parent and is_remote(Path(parent)):  # nothing is fetched because a file says so
            raise CardError(f"{here}: 'extends' names a URL, {parent!r}", "name a card beside this one")
        chain.append(values)
        here = here.parent / parent if parent else None
    return merge(*reversed(chain))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml_text.read(path)
    except yaml_text.YamlError as error:
        raise CardError(f"{path} is not YAML: {error}", "correct the file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"cannot read card {path}: {error}", "give the path of a YAML card") from error
    if not isinstance(values, dict):
        raise CardError(f"{path} is not a card: it holds no keys", "see examples/cards/ for cards")
    if values.get("facekit", FORMAT) != FORMAT:
        raise CardError(
            f"{path} has card format {values['facekit']!r}, this facekit reads format {FORMAT}", "upgrade facekit"
        )
    values.pop("made", None)
    return _sections(values, str(path))


def read_made(path: Path) -> dict[str, Any]:
    """Return the results (`made`) of a finished run's card; raises CardError if the card holds none."""
    try:
        return dict(yaml_text.read(path)["made"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CardError(f"{path} does not hold results: {error}", "run its command again") from error


def _sections(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return values without empty sections; raises CardError for a section that is not a mapping."""
    for key in SECTIONS:
        if values.get(key) is not None and not isinstance(values[key], Mapping):
            raise CardError(f"{where}: {key!r} must be a section with keys (got {values[key]!r})", "correct it")
    return {key: value for key, value in values.items() if key not in SECTIONS or value is not None}


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key, nested ones too; later values replace earlier ones."""
    out: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = out.get(key)
            out[key] = merge(old if isinstance(old, dict) else {}, value) if isinstance(value, Mapping) else value
    return out


def assignment(text: str) -> dict[str, Any]:
    """Turn `a.b=c` (the value is YAML) into {"a": {"b": c}}; raises CardError if there is no `=`."""
    keys, equals, value = text.partition("=")
    if not equals or not keys.strip():
        raise CardError(f"--set {text!r} has no key or no value", "write --set key.key=value")
    try:
        out = yaml_text.parse(value)
    except yaml_text.YamlError as error:
        raise CardError(f"--set {text!r}: the value is not YAML", "quote it") from error
    for key in reversed(keys.strip().split(".")):
        out = {key: out}
    return _sections(out, f"--set {text!r}")


def validate(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Check values against a model; raises CardError that names every wrong key and the nearest valid one."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        hint = "fix the value in the card or on the command line"
        raise CardError(f"{where}: " + "; ".join(dict.fromkeys(lines)), hint) from error


def _explain(model: type[BaseModel], problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    if path[0] == "losses":
        path = path[:2] + path[3:]  # pydantic adds the tag of `Weighted`
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{suggest(path[-1], _fields_at(model, path[:-1]))}"
    if problem["type"] == "missing":
        return f"{key!r} is missing"
    got, reason = problem["input"], problem["msg"].lower().removeprefix("value error, ")
    if problem["type"] == "string_type" and isinstance(got, int | float):
        reason += ", put it in quotes"
    return f"{key!r}: {reason} (got {got!r})"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return list(Loss.model_fields) if "losses" in path else list(PhaseOptim.model_fields)
        model = annotation
    return list(model.model_fields)


def suggest(word: str, known: Any) -> str:
    """Return ", did you mean …?" for the nearest known word, else the list of them."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(known)})"


def plain(card: BaseModel) -> dict[str, Any]:
    """Return a card's settings as plain data, without results and without fields that are None."""
    return card.model_dump(mode="json", exclude={"made", "extends"}, exclude_none=True)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the fields in which two cards differ, as `key: old -> new`."""
    before, after = dict(leaves(old)), dict(leaves(new))
    keys = sorted(before.keys() | after.keys())
    changed = [k for k in keys if before.get(k) != after.get(k)]
    return [f"{k}: {before.get(k, 'absent')} -> {after.get(k, 'absent')}" for k in changed]


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every entry that is not a mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def digest(values: Mapping[str, Any]) -> str:
    """Return a short hash of a card's values, the same for equal cards."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def dump(values: Mapping[str, Any]) -> str:
    """Return a card's values as YAML, keys in the given order."""
    return yaml_text.dump(values)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the train card."""
    return TrainCard.model_json_schema()
