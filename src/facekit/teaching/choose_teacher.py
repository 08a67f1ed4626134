"""Which teacher the flags of `facekit pairs` name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import CardError
from ..recipe_api import checkpoint
from .command_teacher import CommandTeacher
from .diffusers_teacher import PREFIX, DiffusersTeacher
from .teachers import FolderTeacher, OnnxTeacher, Teacher, WeightsTeacher


@dataclass(frozen=True)
class TeacherOptions:
    """Who draws; see the flags of `facekit pairs`."""

    name: str | None = None
    to: str | None = None
    recipe: str | None = None
    command: str | None = None
    timeout: float = 600
    prompt: str | None = None
    settings: tuple[str, ...] = ()
    size: int | None = None
    batch: int | None = None


def open_teacher(options: TeacherOptions, device: str, workers: int, seed: int) -> Teacher:
    """Load the teacher; raises CardError for flags that name none, or two, or do not fit it."""
    name = options.name
    if (name is None) == (options.command is None):
        hint = "--teacher WEIGHTS, FILE.onnx, FOLDER or diffusers:NAME; or --teacher-command 'program {in} {out}'"
        raise CardError("no teacher" if name is None else "two teachers", hint)
    diffuses = name is not None and name.startswith(PREFIX)
    if not diffuses and (options.prompt is not None or options.settings):
        raise CardError("--prompt and --set are for diffusers pipelines", f"--teacher {PREFIX}NAME, or leave them out")
    if name is None:
        assert options.command is not None
        return CommandTeacher(options.command, options.size, options.timeout, options.batch or workers)
    if diffuses:
        return DiffusersTeacher(
            name.removeprefix(PREFIX), options.prompt, options.settings, options.size, device, seed, options.batch or 1
        )
    teacher: Teacher
    if name.lower().endswith(".onnx"):
        teacher = OnnxTeacher(Path(name), options.size)
    elif Path(name).is_dir() and not (Path(name) / checkpoint.FILE).is_file() and name not in checkpoint.shipped():
        teacher = FolderTeacher(Path(name), options.size)
    else:
        return _with_batch(WeightsTeacher(name, options.to, options.size, device, options.recipe), options.batch)
    if options.to is not None:
        raise CardError("--to names a domain of weights of facekit", "leave it out")
    return teacher if isinstance(teacher, OnnxTeacher) and teacher.fixed_batch else _with_batch(teacher, options.batch)


def _with_batch(teacher: Teacher, batch: int | None) -> Teacher:
    teacher.batch = batch or teacher.batch
    return teacher
