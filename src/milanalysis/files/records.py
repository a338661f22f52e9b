"""Results as JSON files and back: one codec for all frozen dataclasses, from their annotations.

Arrays become lists, mappings objects, and numbers that are not finite null. In an array null is read as NaN;
a field that may be NaN and is no array is annotated `Number`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from milanalysis.errors import InputFileError
from milanalysis.files.provenance import read_json, write_json

__all__ = ["Number", "Open", "from_plain", "read_record", "to_plain", "write_record"]

Record = TypeVar("Record")

Number = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""A number that may not be defined: NaN, which is null in JSON."""


Open = Annotated[float, BeforeValidator(lambda value: float("inf") if value is None else value)]
"""A number that may be infinite, which is null in JSON."""

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what translates a type, built once."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_plain(record: Any) -> Any:
    """Return a dataclass, or a configuration with all its defaults, as JSON-like values.

    Example:
        >>> from milanalysis.parameters import EFTPolynomial
        >>> import numpy as np
        >>> to_plain(EFTPolynomial(np.array([1.0, 0.5])))
        {'coefficients': [1.0, 0.5], 'covariance': None}
    """
    return json.loads(_adapter(type(record)).dump_json(record))


def from_plain(kind: type[Record], values: Any) -> Record:
    """Make a dataclass of a kind from what `to_plain` returned.

    Raises:
        pydantic.ValidationError: if it is something else.
    """
    record: Record = _adapter(kind).validate_python(values)
    return record


def write_record(path: Path, record: Any) -> None:
    """Write a result as a JSON file, complete or not at all."""
    write_json(path, to_plain(record))


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read a result that `write_record` has written.

    Args:
        path: the JSON file.
        kind: class of the result.

    Raises:
        InputFileError: if the file is missing or unreadable, or holds the result of another version, naming
            what is wrong.
    """
    values = read_json(path)
    try:
        return from_plain(kind, values)
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        msg = (
            f"{path} holds no result of this version of milanalysis ({reason}); run `milanalysis run` on the "
            "configuration again"
        )
        raise InputFileError(msg) from error
