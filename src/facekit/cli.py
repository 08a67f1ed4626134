"""The `facekit` executable: a lazy table of commands, the flags they all have, and errors as exit codes."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import traceback
import typing
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from .errors import FacekitError

COMMANDS = {
    "crawl": "Fetch pictures from a board, a list of addresses or a folder: politely, checked, with their sources.",
    "align": "Find the faces in photos, level the eyes, cut out squares.",
    "clean": "Find duplicates, near-duplicates and bad images; keep the best of each group.",
    "smooth-edges": "Blur drawings along their edges and nowhere else, as CartoonGAN's training wants them.",
    "train": "Train a face translator on two folders of images.",
    "train-segnet": "Train a segmenter of face parts on photos with masks.",
    "ablate": "Train a method without its parts, sweep its weights, set other methods beside it, compare.",
    "translate": "Turn photos into anime faces, or whatever the weights know.",
    "export": "Write trained weights as an ONNX file, for programs without PyTorch.",
    "score-fid": "Score a folder of images against real ones: FID, KID, and what a translation keeps.",
    "recipes": "List the methods that `train` knows, or describe one.",
}


class LazyGroup(TyperGroup):
    """Knows every command's name and line of help, and imports only the one that runs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])  # type: ignore[assignment]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None if "--help" not in sys.argv and len(sys.argv) > 1 else "rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command takes --help. Exit codes: 2 usage or card, 3 input or output, 4 some images failed, "
    "5 weights or package missing, 6 diverged, 7 out of memory, 130 interrupted, 1 a bug.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"facekit {__version__}")
        raise typer.Exit


@app.callback()
def facekit(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Turn face photos into anime, cartoon and game-character faces, with models that you train yourself."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


def load_command(name: str) -> Any:
    """Import a command and return it with the flags that all commands share."""
    module = import_module(f".commands.{name.replace('-', '_')}", __package__)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    alone.command(name)(shell(getattr(module, name.replace("-", "_"))))
    return typer.main.get_command(alone)


def _from_card(ctx: typer.Context, value: Optional[Path]) -> Optional[Path]:
    """Take the values of a flat card as the defaults of this call."""
    if value is None or ctx.resilient_parsing:
        return value
    from .errors import CardError
    from .storage import card

    try:
        values = card.validate(card.FlatCard, card.load(value), str(value))
        if values.command != ctx.info_name:
            raise CardError(f"{value} is a card of {values.command!r}", f"run: facekit {values.command} --card {value}")
        known = {p.name for p in ctx.command.params} - {"as_json", "quiet", "debug", "card", "help"}
        for key in values.options:
            if key not in known:
                raise CardError(f"{value}: unknown option {key!r}{card.suggest(key, known)}", "mend the card")
    except CardError as error:
        raise typer.BadParameter(f"{error.message} ({error.hint})") from error
    ctx.default_map = {**(ctx.default_map or {}), **values.options}
    return value


Card = Annotated[
    Optional[Path],
    typer.Option("--card", help="repeat the run of a card; flags win over it", callback=_from_card, is_eager=True),
]
SHARED = {
    "as_json": Annotated[bool, typer.Option("--json", help="JSON lines on stdout", rich_help_panel="Output")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="only warnings and errors", rich_help_panel="Output")],
    "debug": Annotated[bool, typer.Option("--debug", help="show the traceback of an error", rich_help_panel="Output")],
}


def shell(function: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a public function as a command: add the shared flags, report, and turn errors into exit codes."""
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    parameters = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
    extra: dict[str, tuple[Any, Any]] = {name: (kind, False) for name, kind in SHARED.items()}
    if "card" not in hints:
        extra = {"card": (Card, None), **extra}
    for name, (kind, default) in extra.items():
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))

    @functools.wraps(function)
    def call(**values: Any) -> None:
        shared = {name: values.pop(name) for name in extra}
        guard(functools.partial(function, **values), shared["as_json"], shared["quiet"], shared["debug"])

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def guard(work: Callable[[], Any], as_json: bool, quiet: bool, debug: bool) -> None:
    """Run a command's work; whatever it raises becomes a line and an exit code."""
    from .errors import FacekitError, Interrupted
    from .runtime import console

    def terminate(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    console.current.set(console.choose(as_json, quiet))
    old = signal.signal(signal.SIGTERM, terminate)
    try:
        work()
        return
    except FacekitError as problem:
        error: FacekitError = problem
    except KeyboardInterrupt:
        error = Interrupted("stopped", "run the same command again")
    except BrokenPipeError:  # the reader, such as `head`, has gone: typer ends without a word
        raise
    except Exception as problem:
        error = _unexpected(problem)
    finally:
        signal.signal(signal.SIGTERM, old)
    if debug:
        traceback.print_exception(error)
    if as_json:
        console.json_line("error", message=error.message, hint=error.hint, exit=error.code)
    print(f"error: {error.message}" + (f"\n  next: {error.hint}" if error.hint else ""), file=sys.stderr)
    raise typer.Exit(error.code)


def _unexpected(problem: Exception) -> FacekitError:
    """Name an exception that is no FacekitError: a place that cannot be written, or else a bug."""
    from .errors import FacekitError, OutputError
    from .storage import files

    if isinstance(problem, OSError) and problem.errno in files.REASONS:
        reason, hint = files.REASONS[problem.errno]
        error: FacekitError = OutputError(f"{problem.filename or 'output'}: {reason}", hint)
    else:
        hint = "this is a bug: please report it with the output of --debug"
        error = FacekitError(f"{type(problem).__name__}: {problem}", hint)
    error.__cause__ = problem
    return error


def main() -> None:
    """Run facekit."""
    app(prog_name="facekit")
