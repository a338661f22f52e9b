"""YAML files that people write: read strictly, with messages that say where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from milanalysis.errors import ConfigError

__all__ = ["read_mapping"]


class _UniqueKeysLoader(yaml.SafeLoader):
    """Refuses a key that is written twice; YAML's own rule for it is that the last one counts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping as a dictionary."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key has to be a word and is a list or a mapping; a value that begins with { or [ needs quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read the keys and values of an analysis.

    Raises:
        ConfigError: naming the file, if it is missing, not YAML, not a mapping, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        msg = f"{path}: no such file; give the path of an analysis in YAML, for example one of analysis_configs/"
        raise ConfigError(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as text ({error}); give the path of an analysis in YAML"
        raise ConfigError(msg) from error
    try:
        values = yaml.load(text, Loader=_UniqueKeysLoader)
    except yaml.YAMLError as error:
        msg = f"{path} is not valid YAML: {error}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = (
            f"{path} should hold the keys of an analysis (name, seed, samples, ...) and holds {values!r:.60}"
        )
        raise ConfigError(msg)
    return values
