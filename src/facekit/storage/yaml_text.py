"""Reading and writing YAML 1.2 (core schema): `no` is text, 010 is ten, 1e-4 is a number; duplicate keys are errors."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from . import content, files

LARGEST = 5_000_000  # bytes of a file
MOST_VALUES = 100_000  # of a file, with aliases expanded
CORE = (  # https://yaml.org/spec/1.2.2/#1032-tag-resolution
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
)


class YamlError(ValueError):
    """Text that is not valid YAML, or exceeds a limit; the message says why and in which line."""


class _Loader(yaml.SafeLoader):
    """Reads the core schema of YAML 1.2, and `<<` of 1.1."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}

    def integer(self, node: yaml.ScalarNode) -> int:
        """Read an integer: decimal, 0o17 or 0x1f."""
        value = self.construct_scalar(node)
        return int(value, 0) if value[:2] in ("0o", "0x") else int(value)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type; writes no aliases."""

    yaml_implicit_resolvers = {key: list(rules) for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind, _pattern, _first in CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)


def parse(text: str) -> Any:
    """Return the value of a YAML text; raises YamlError if it is invalid, has a duplicate key or exceeds a limit."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise YamlError(f"{reason}, line {mark.line + 1}" if mark else reason) from error
    except RecursionError as error:
        raise YamlError("it is nested too deeply") from error
    except YamlError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise YamlError(str(error)) from error
    finally:
        if loader:
            loader.dispose()


def read(path: Path) -> Any:
    """Return the value of a YAML file in UTF-8, or in UTF-16 with a byte order mark.

    Raises YamlError as `parse` does, OSError or UnicodeDecodeError if the file cannot be read.
    """
    status = content.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError("it is not a regular file")
    if status.st_size > LARGEST:
        raise OSError(f"it has {status.st_size / 1e6:.0f} MB, more than {LARGEST / 1e6:.0f}")
    return parse(files.decoded(content.read_bytes(path)))


def dump(values: Mapping[str, Any]) -> str:
    """Return values as YAML, keys in the given order."""
    return yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


def _check(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of values in a node; raises YamlError for a duplicate key or too many values."""
    if sizes.get(id(node)) == 0:
        raise YamlError(f"a value contains itself, line {node.start_mark.line + 1}")
    if id(node) not in sizes:
        sizes[id(node)] = 0
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _refuse_duplicate_keys(node)
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes[id(node)] = 1 + sum(_check(child, sizes) for child in children)
        if sizes[id(node)] > MOST_VALUES:
            raise YamlError(f"it holds more than {MOST_VALUES:,} values with aliases expanded")
    return sizes[id(node)]


def _refuse_duplicate_keys(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            line, known = key.start_mark.line + 1, (key.tag, key.value)
            if known in lines:
                raise YamlError(f"duplicate key {key.value!r}: lines {lines[known]} and {line}")
            lines[known] = line
