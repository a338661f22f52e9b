"""YAML files that people write: read strictly, with messages that say where to look."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from milanalysis.errors import ConfigError

__all__ = ["read_mapping"]


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is written twice (YAML lets the last one count), and reads words as YAML 1.2 does.

    PyYAML follows version 1.1, where ``1:30`` is 90, ``010`` is 8, ``no`` is false and ``1e-3`` is text.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 (those of version 1.1 are not wanted)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping as a dictionary."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = (
                    "a key has to be a word and is a list or a mapping; a value that begins with "
                    "{ or [ needs quotes"
                )
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_DIGITS = list("-+.0123456789")
for _tag, _words, _beginnings in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", _DIGITS),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        _DIGITS,
    ),
    ("merge", r"<<", ["<"]),
):
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_words})$"), _beginnings
    )


def _integer(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    """Return a whole number, in the decimal system whatever it begins with."""
    return int(loader.construct_scalar(node))


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read the keys and values of an analysis.

    Raises:
        ConfigError: naming the file, if it is missing, not YAML, not a mapping, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        msg = (
            f"{path}: no such file; give the path of an analysis in YAML, for example one of "
            "analysis_configs/"
        )
        raise ConfigError(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as text ({error}); give the path of an analysis in YAML"
        raise ConfigError(msg) from error
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    # numbers too long, lists too deep, tags that do not fit
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError) as error:
        msg = f"{path} is not valid YAML: {error}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = (
            f"{path} should hold the keys of an analysis (name, seed, samples, ...) and holds {values!r:.60}"
        )
        raise ConfigError(msg)
    return values
