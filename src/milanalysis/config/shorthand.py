"""Shorthand in an analysis: a word for a choice without settings, a single value for a list of one.

``executor: dask`` stands for ``executor: {kind: dask}`` and ``files: x.root`` for ``files: [x.root]``,
    wherever the
configuration has a choice or a list.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from milanalysis.errors import ConfigError

__all__ = ["spelled_out"]


def spelled_out(form: Any, value: Any, place: str = "") -> Any:
    """Return a value with everything in it written in full.

    Args:
        form: the type it shall have; dataclasses are looked into.
        value: as read from YAML.
        place: where it is, for messages.

    Raises:
        ConfigError: if a word is none of the choices, listing them; if true or false stands where a number
            belongs, which would count as 1 or 0.
    """
    options = _options(form)
    classes = [one for one in options if is_dataclass(one)]
    kinds = {kind: one for one in classes for kind in _kinds(one)}
    if isinstance(value, str) and len(kinds) > 1 and len(classes) + options.count(type(None)) == len(options):
        if value not in kinds:
            msg = f"{place}: {value!r} is none of the choices: {', '.join(kinds)}"
            raise ConfigError(msg)
        return {"kind": value}
    if isinstance(value, Mapping) and classes:
        # the first of the models is the one that needs no kind
        kind = value.get("kind")
        chosen = kinds.get(kind) if isinstance(kind, str) else classes[0] if kind is None else None
        hints = {} if chosen is None else get_type_hints(chosen, include_extras=True)
        return {
            key: spelled_out(hints[key], one, f"{place}.{key}".lstrip(".")) if key in hints else one
            for key, one in value.items()
        }
    for option in options:
        arguments = get_args(option)
        if get_origin(option) is dict and isinstance(value, Mapping):
            return {key: spelled_out(arguments[1], one, f"{place}.{key}") for key, one in value.items()}
        is_mapping = isinstance(value, Mapping) and any(get_origin(one) is dict for one in options)
        if get_origin(option) is tuple and value is not None and not is_mapping:
            is_one = isinstance(value, str | int | float) or (
                isinstance(value, Mapping) and any(map(is_dataclass, _options(arguments[0])))
            )
            some = [value] if is_one else value
            return (
                [spelled_out(arguments[0], one, place) for one in some] if isinstance(some, list) else value
            )
    if isinstance(value, bool) and bool not in options and {int, float} & set(options):
        msg = f"{place}: {str(value).lower()} is no number; write a number"
        raise ConfigError(msg)
    return value


def _options(form: Any) -> list[Any]:
    """Return the types that a value may have."""
    if get_origin(form) is Annotated:
        return _options(get_args(form)[0])
    if get_origin(form) in {Union, types.UnionType}:
        return [option for one in get_args(form) for option in _options(one)]
    return [form]


def _kinds(one: Any) -> tuple[str, ...]:
    """Return the words for a choice."""
    kind = get_type_hints(one).get("kind")
    return get_args(kind) if get_origin(kind) is Literal else ()
