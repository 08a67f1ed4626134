"""A mkdocs hook: writes the reference from the code, brings in pages from outside docs/, and turns TeX into MathML.

A page asks for a part of the reference with a comment on a line of its own:

    <!-- facekit:command NAME -->   arguments and options of a command
    <!-- facekit:commands -->       all of them
    <!-- facekit:recipe NAME -->    losses, parameters and defaults of a recipe
    <!-- facekit:recipes -->        the table of all recipes
    <!-- facekit:card -->           every key of a training card
    <!-- facekit:exit-codes -->     exit codes and what they mean
    <!-- facekit:api -->            the public functions
"""

from __future__ import annotations

import inspect
import os
import posixpath
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
MARKER = re.compile(r"^<!-- facekit:([\w-]+)(?: ([\w-]+))? -->$", re.M)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
MATH = re.compile(r"^```math\n(.*?)\n```$", re.M | re.S)
INLINE_MATH = re.compile(r"\$`([^`]+)`\$")

EXTRA = {  # page of the site: file of the repository
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "benchmarks/commands.md": "benchmarks/README.md",
    "benchmarks/results.md": "benchmarks/RESULTS.md",
    "benchmarks/ugatit-face.md": "benchmarks/ugatit_face.md",
    **{
        f"weights/{path.name}": path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "src/facekit/weights").glob("*.md"))
    },
}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def code(value: object) -> str:
    """Return a value as Markdown code, as YAML writes it; nothing for an absent or empty one."""
    if value is None or value in ("", {}, [], ()):
        return ""
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def kind(annotation: Any) -> str:
    """Return a type in words: "number", "path", or the choices of a Literal."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(code(choice) for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind(one) for one in inner if one is not type(None))
    if origin is typing.Annotated:
        return kind(inner[0])
    if origin is list:
        return f"{kind(inner[0])}, repeatable"
    if origin is tuple:
        return f"{len(inner)} {kind(inner[0])}s"
    if origin is dict:
        return "section"
    names = {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path"}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return names.get(annotation, "any")


def command(name: str) -> str:
    """Return usage, arguments, options and examples of a command."""
    from facekit import cli
    from facekit.commands.table import COMMANDS

    loaded = cli.load_command(name)
    hints = typing.get_type_hints(loaded.callback)
    arguments = [p for p in loaded.params if p.param_type_name == "argument"]
    usage = " ".join(["facekit", name, *(p.metavar for p in arguments), "[OPTIONS]"])
    out = [f"```text\n{usage}\n```"]
    rows = [(code(p.metavar.strip("[]")), kind(hints[p.name]), p.help or "") for p in arguments]
    out += [table(("argument", "is", "meaning"), rows)] if rows else []
    panels: dict[str, list[tuple[str, ...]]] = {}
    for p in loaded.params:
        if p.param_type_name == "argument" or p.name == "help":
            continue
        flags = " / ".join(code(flag) for flag in [*p.opts, *p.secondary_opts])
        default = "" if p.default in (None, False) or callable(p.default) else code(p.default)
        if p.secondary_opts:
            default = code(p.opts[0] if p.default else p.secondary_opts[0])
        takes = "" if getattr(p, "is_flag", False) else kind(hints[p.name])
        panel = getattr(p, "rich_help_panel", None) or "Options"
        panels.setdefault(panel, []).append((flags, takes, default, p.help or ""))
    for panel, rows in panels.items():
        out += [f"**{panel}**", table(("option", "takes", "default", "meaning"), rows)]
    lines = "\n".join(f"{line}    # {about}" for line, about in COMMANDS[name].examples)
    return "\n\n".join([*out, f"**Examples**\n\n```bash\n{lines}\n```"])


def commands() -> str:
    """Return the reference of every command, by group."""
    from facekit.commands.table import COMMANDS

    parts = []
    for name, one in COMMANDS.items():
        parts += [f"## facekit {name} {{ #{name} }}", f"{one.summary} [Guide](../commands/{name}.md).", command(name)]
    return "\n\n".join(parts)


def bounds(field: FieldInfo) -> str:
    """Return the limits of a field, such as "at least 1"."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}
    found = [f"{words[key]} {getattr(limit, key)}" for limit in field.metadata for key in words if hasattr(limit, key)]
    return ", ".join(found)


def fields(model: type[BaseModel], prefix: str = "", values: dict[str, Any] | None = None) -> list[tuple[str, ...]]:
    """Return rows (key, type, default, meaning) of a model; `values` override its defaults."""
    rows = []
    for name, field in model.model_fields.items():
        default = (values or {}).get(
            name, None if field.is_required() else field.get_default(call_default_factory=True)
        )
        shown = code("yes" if default is True else "no" if default is False else default)
        limits = bounds(field)
        rows.append(
            (
                code(prefix + name),
                kind(field.annotation) + (f", {limits}" if limits else ""),
                shown,
                field.description or "",
            )
        )
    return rows


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield a model's sections by their dotted name, itself first with the empty name."""
    yield prefix, model
    for name, field in model.model_fields.items():
        for one in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from sections(one, f"{prefix}{name}.")


def card() -> str:
    """Return every key of a training card, a table a section, and what a loss and a phase may set."""
    from facekit.storage import card as cards

    head = ("key", "takes", "default", "meaning")
    out = []
    for prefix, model in sections(cards.TrainCard):
        inner = {name for name, _ in sections(model)}
        rows = [row for row in fields(model, prefix) if f"{row[0].strip('`').removeprefix(prefix)}." not in inner]
        out += [f"### {prefix.rstrip('.') or 'Top level'}", inspect.getdoc(model) or "", table(head, rows)]
    for prefix, model in (("losses.TERM.", cards.Loss), ("optim.phases.PHASE.", cards.PhaseOptim)):
        out += [f"### {prefix.rstrip('.')}", inspect.getdoc(model) or "", table(head, fields(model, prefix))]
    return "\n\n".join(out)


def recipe(name: str) -> str:
    """Return losses, phases, parameters, defaults and sizes of nets of a recipe."""
    import torch

    from facekit.recipe_api.registry import find
    from facekit.storage import card as cards

    cls, preset = find(name)
    values = cards.merge(cls.defaults, preset)
    params = cls.Params.model_validate(values.get("params", {}))
    built = cls(params.model_dump(), values.get("data", {}).get("size", 256))
    with torch.device("meta"):
        counts = {key: sum(p.numel() for p in net.parameters()) for key, net in built.nets().items()}
    weights = {key: one["weight"] if isinstance(one, dict) else one for key, one in values.get("losses", {}).items()}
    terms = [
        (code(t.name), code(t.phase), code(f"{weights.get(t.name, t.weight):g}"), t.doc) for t in cls.terms().values()
    ]
    nets = [(code(key), f"{count / 1e6:.2f} M") for key, count in counts.items() if count]
    nets.append(("all", f"{sum(counts.values()) / 1e6:.2f} M"))
    rest = cards.dump({key: value for key, value in values.items() if key not in ("params", "losses")}).rstrip()
    return "\n\n".join(
        [
            f"## {name} {{ #{name} }}",
            " ".join((inspect.getdoc(cls) or "").split()),
            f"```bash\nfacekit train {name} --data DATA/\n```",
            "**Losses.** Set a weight with `--set losses.NAME=VALUE`; 0 drops the loss and its cost.",
            table(("loss", "phase", "weight", "meaning"), terms),
            "**Parameters.** Set one with `--set params.NAME=VALUE`.",
            table(("parameter", "takes", "default", "meaning"), fields(cls.Params, values=params.model_dump())),
            "**Nets**",
            table(("net", "parameters"), nets),
            f"**Defaults**\n\n```yaml\n{rest}\n```",
        ]
    )


def method_pages() -> dict[str, str]:
    """Return the page of the site that describes each recipe."""
    found = {}
    for path in sorted((ROOT / "docs/methods").glob("*.md")):
        for what, name in MARKER.findall(path.read_text(encoding="utf-8")):
            if what == "recipe":
                found[name] = f"methods/{path.name}"
    return found


def recipes() -> str:
    """Return the table of all recipes with links to their pages."""
    from facekit.recipe_api.registry import catalogue

    pages = method_pages()
    rows = [
        (f"[`{one.name}`]({posixpath.basename(pages[one.name])}#{one.name})", one.summary)
        for one in catalogue().values()
        if one.target.startswith("facekit.")
    ]
    return table(("recipe", "method"), rows)


def exit_codes() -> str:
    """Return the exit codes with the docstrings of their errors."""
    from facekit import errors

    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    meaning: dict[int, list[str]] = {0: ["Done."]}
    for one in kinds:
        about = (
            "A bug: please report it." if one is errors.FacekitError else (inspect.getdoc(one) or "").split("\n\n")[0]
        )
        meaning.setdefault(one.code, []).append(" ".join(about.split()))
    return table(("code", "meaning"), [(code(number), " ".join(text)) for number, text in sorted(meaning.items())])


def signature(function: Any) -> str:
    """Return a function's call with its defaults, without types."""
    parameters = inspect.signature(function).parameters.values()
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    line = f"facekit.{function.__name__}{inspect.Signature(plain)}"
    return "\n".join(textwrap.wrap(line, 88, subsequent_indent="    ", break_long_words=False))


def api() -> str:
    """Return the functions of `import facekit`: signature, docstring, and parameters as of their flags."""
    import facekit
    from facekit import cli
    from facekit.commands.table import COMMANDS

    out = []
    for name in facekit._HOMES:
        function, command_name = getattr(facekit, name), name.replace("_", "-")
        out += [f"## {name}", f"```python\n{signature(function)}\n```", inspect.getdoc(function) or ""]
        hints = typing.get_type_hints(function)
        about = {p.name: p.help for p in cli.load_command(command_name).params} if command_name in COMMANDS else {}
        rows = [
            (code(key), kind(hints.get(key)), about.get(key) or "") for key in inspect.signature(function).parameters
        ]
        if any(meaning for *_, meaning in rows):
            out.append(table(("parameter", "takes", "meaning"), rows))
    return "\n\n".join(out)


PARTS: dict[str, Any] = {
    "command": command,
    "commands": commands,
    "recipe": recipe,
    "recipes": recipes,
    "card": card,
    "exit-codes": exit_codes,
    "api": api,
}


def expand(markdown: str) -> str:
    """Replace every marker by its part of the reference."""
    return MARKER.sub(lambda found: PARTS[found[1]](*filter(None, [found[2]])), markdown)


def mathml(markdown: str) -> str:
    """Replace TeX, in blocks marked `math` and between $` and `$, by MathML, which browsers show without a script."""
    from latex2mathml.converter import convert

    markdown = MATH.sub(lambda found: f'<div class="math">{convert(found[1], display="block")}</div>', markdown)
    return INLINE_MATH.sub(lambda found: convert(found[1]), markdown)


def relink(markdown: str, uri: str, path: str) -> str:
    """Rewrite links of the repository's file `path`, now page `uri`: to pages of the site, or as plain file names."""
    pages = {file: page for page, file in EXTRA.items()}

    def one(found: re.Match[str]) -> str:
        image, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if not target or ":" in target:
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if file.startswith("docs/"):
            page = file.removeprefix("docs/")
        elif file in pages:
            page = pages[file]
        elif (ROOT / file).exists():
            return f"{text} (`{file}` in the repository)" if f"`{file}`" != text else text
        else:
            return found[0]
        return f"{image}[{text}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{anchor})"

    return LINK.sub(one, markdown)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for uri, path in EXTRA.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Expand markers and formulas and rewrite links."""
    uri = page.file.src_uri
    return mathml(expand(relink(markdown, uri, EXTRA.get(uri, f"docs/{uri}"))))


os.environ.setdefault("OMP_NUM_THREADS", "1")
