"""The `facekit` executable: commands that load on demand, the flags they share, errors as exit codes."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import shutil
import sys
import textwrap
import traceback
import typing
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand, TyperGroup

from .commands.table import COMMANDS

if TYPE_CHECKING:
    from .errors import FacekitError

USAGE_ERROR = typer.BadParameter.__base__  # click's UsageError, of the click that typer brings
EPILOG = (
    "`facekit COMMAND --help` shows a command's options and examples. Exit codes: 0 done, 1 a bug, 2 usage or card, "
    "3 input or output, 4 some images failed, 5 weights or package missing, 6 training diverged, 7 out of memory, "
    "130 interrupted."
)


class FacekitGroup(TyperGroup):
    """Knows every command's name and summary, and imports only the one that runs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the placeholder of a command by the command."""
        if args and args[0] in COMMANDS:
            command = self.commands[args[0]] = load_command(args[0])
            if not ctx.resilient_parsing:
                ctx.default_map = {args[0]: own_defaults(args[0], command)}
        return super().resolve_command(ctx, args)

    def main(self, args: Any = None, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command line; a usage error becomes a message with a next step, also in JSON, and exit code 2."""
        words = sys.argv[1:] if args is None else list(args)
        try:
            code = super().main(words or ["--help"], standalone_mode=False, **extra)
        except USAGE_ERROR as error:  # type: ignore[misc]
            from .errors import CardError

            path = error.ctx.command_path if error.ctx else "facekit"
            as_json = "--json" in words[: words.index("--")] if "--" in words else "--json" in words
            report_error(CardError(error.format_message(), f"{path} --help"), as_json)
            code = error.exit_code
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the commands by group; plain text, because rich takes longer to import than the rest to run."""
        width = min(shutil.get_terminal_size().columns, 100)
        column = 24
        indent = " " * column
        lines = ["Usage: facekit COMMAND [OPTIONS] ...", "", *textwrap.wrap(self.help or "", width)]
        for group in dict.fromkeys(command.group for command in COMMANDS.values()):
            lines += ["", typer.style(group, bold=True)]
            for name, command in COMMANDS.items():
                if command.group == group:
                    text = f"  {name:{column - 2}}{command.summary}"
                    lines += textwrap.wrap(text, width, subsequent_indent=indent)
        lines += ["", typer.style("Options", bold=True)]
        for parameter in self.get_params(ctx):
            flags = ", ".join(sorted(parameter.opts, key=len))
            text = f"  {flags:{column - 2}}{getattr(parameter, 'help', '')}"
            lines += textwrap.wrap(text, width, subsequent_indent=indent)
        typer.echo("\n".join([*lines, "", *textwrap.wrap(EPILOG, width)]))


class FacekitCommand(TyperCommand):
    """A command whose help ends with examples."""

    examples: tuple[tuple[str, str], ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, then the examples."""
        super().format_help(ctx, formatter)
        if not self.examples:
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.panel import Panel

        lines = [f"[bold]{escape(line)}[/]\n  [dim]{escape(about)}[/]" for line, about in self.examples]
        Console().print(Panel("\n".join(lines), title="Examples", title_align="left", border_style="dim"))


app = typer.Typer(
    cls=FacekitGroup,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"facekit {__version__}")
        raise typer.Exit


@app.callback()
def facekit(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Turn face photos into anime, cartoon and game-character faces, with models that you train yourself."""


for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.summary, rich_help_panel=_command.group)(lambda: None)


def load_command(name: str) -> Any:
    """Import a command and return it with the flags that all commands share, its help and its examples."""
    module = COMMANDS[name].module or name.replace("-", "_")
    function = getattr(import_module(f".commands.{module}", __package__), module)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    alone.command(name, cls=FacekitCommand, help=unwrapped(inspect.getdoc(function) or ""))(shell(function))
    command: Any = typer.main.get_command(alone)
    command.examples = COMMANDS[name].examples
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.param_type_name == "argument" and parameter.metavar is None:
            parameter.metavar = parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]"
    return command


def own_defaults(name: str, command: Any) -> dict[str, Any]:
    """Return the defaults that the user's settings file has for a command; a usage error where they do not fit."""
    from .errors import CardError
    from .storage import settings

    if not settings.settings_file().is_file():
        return {}
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    flags = {flag.lstrip("-").replace("-", "_"): one.name for one in options for flag in one.opts}
    try:
        return settings.defaults(name, flags, list(COMMANDS))
    except CardError as error:
        raise typer.BadParameter(f"{error.message} ({error.hint})") from error


def unwrapped(text: str) -> str:
    """Return a docstring with every paragraph on one line, so that it fills any width of terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


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
        given = {RENAMED.get(key, key): option for key, option in values.options.items()}
        options = {key if key in known else CARD_KEYS.get(key, key): option for key, option in given.items()}
        if "recipe" in options:
            hint = "remove `recipe` from the card and name the file yourself: --recipe FILE.py"
            raise CardError(f"{value} names a recipe file, and cards do not run code", hint)
        options.pop("allow_torchscript", None)  # a card never allows code
        for key in options:
            if key not in known:
                raise CardError(f"{value}: unknown option {key!r}{card.suggest(key, known)}", "fix the card")
    except CardError as error:
        raise typer.BadParameter(f"{error.message} ({error.hint})") from error
    ctx.default_map = {**(ctx.default_map or {}), **options}
    return value


RENAMED = {"suffix": "format"}  # what cards call --format
CARD_KEYS = {"came_from": "from_", "source": "from_", "and": "and_", "with": "with_"}  # what cards call flags
Card = Annotated[
    Optional[Path],
    typer.Option("--card", help="repeat the run of a card; flags override it", callback=_from_card, is_eager=True),
]
SHARED = {
    "as_json": Annotated[
        bool, typer.Option("--json", help="print events as JSON lines on stdout", rich_help_panel="Output")
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="print warnings and errors only", rich_help_panel="Output")
    ],
    "debug": Annotated[bool, typer.Option("--debug", help="print the traceback of an error", rich_help_panel="Output")],
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
    """Run a command's work; whatever it raises becomes a message, an `error` event and an exit code."""
    from .errors import FacekitError, Interrupted
    from .runtime import console
    from .runtime.signals import interruptible

    reporter = console.choose(as_json, quiet)
    console.current.set(reporter)
    try:
        with interruptible():
            returned = work()
        if isinstance(reporter, console.Json):
            reporter.finish(returned)
        return
    except FacekitError as problem:
        error: FacekitError = problem
    except KeyboardInterrupt:
        error = Interrupted("stopped", "run the same command again")
    except BrokenPipeError:  # the reader, such as `head`, has gone: typer exits silently
        raise
    except Exception as problem:
        error = _unexpected(problem)
    if debug:
        traceback.print_exception(error)
    report_error(error, as_json)
    raise typer.Exit(error.code)


def report_error(error: FacekitError, as_json: bool) -> None:
    """Print an error with its next step on stderr and, if asked for, as a JSON event on stdout."""
    from .runtime import console
    from .runtime.printable import printable

    if as_json:
        console.json_line("error", message=error.message, hint=error.hint, exit=error.code)
    lines = [f"error: {printable(error.message)}"] + ([f"  next: {printable(error.hint)}"] if error.hint else [])
    print("\n".join(lines), file=sys.stderr)


def _unexpected(problem: Exception) -> FacekitError:
    """Convert any other exception to a FacekitError: an output that cannot be written, no memory, or a bug."""
    from .errors import FacekitError, OutOfMemory, OutputError
    from .storage import files

    if isinstance(problem, OSError) and problem.errno in files.REASONS:
        reason, hint = files.REASONS[problem.errno]
        error: FacekitError = OutputError(f"{problem.filename or 'output'}: {reason}", hint)
    elif isinstance(problem, MemoryError) or "allocate memory" in str(problem):
        hint = "close other programs, raise the memory limit, or take a smaller --size, --batch or --workers"
        error = OutOfMemory("out of memory", hint)
    else:
        hint = "this is a bug: please report it with the output of --debug and of `facekit env`"
        error = FacekitError(f"{type(problem).__name__}: {problem}", hint)
    error.__cause__ = problem
    return error


def main() -> None:
    """Run facekit as a program; where torch was loaded, the process ends without torch's own clearing up.

    That takes half a second and 120 MiB, for memory that the system takes back anyway.
    """
    codes: list[int] = []
    atexit.register(_leave, codes)  # registered first, so it runs after all others
    try:
        app(prog_name="facekit")
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            codes.append(ended.code or 0)
        raise


def _leave(codes: list[int]) -> None:
    """End the process at once with the code that was raised; with none, or with output that is stuck, Python does."""
    if codes and "torch" in sys.modules:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return
        os._exit(codes[0])
