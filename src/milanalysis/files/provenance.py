"""Where a result came from: digests, versions, and files that are either complete or absent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from milanalysis.errors import InputFileError, MilAnalysisError, OutputError, cannot_write

__all__ = [
    "atomic_path",
    "digest_of",
    "file_digest",
    "package_versions",
    "read_json",
    "source_digest",
    "write_json",
    "writing",
]

Result = TypeVar("Result")

_PACKAGES = (
    "milanalysis",
    "awkward",
    "coffea",
    "hist",
    "iminuit",
    "keras",
    "lightgbm",
    "numba",
    "numpy",
    "pyarrow",
    "pyhf",
    "scipy",
    "tensorflow",
    "uproot",
    "vector",
    "xgboost",
    "xgboost-cpu",
)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Return the digest of the source of the package: results of other code are not those of this."""
    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"))
    return digest_of([[path.relative_to(package).as_posix(), file_digest(path)] for path in files])


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result may depend on, importing none of them."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "tensorflow":
                versions[name] = importlib.metadata.version("tensorflow-cpu")
    return versions


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` and move it there only if the block succeeds.

    Yields:
        A path with the same suffix in the same directory (which is created). An error inside the block
        leaves ``path`` as it was and no half-written file behind.

    Raises:
        OutputError: naming ``path``, if the system refuses to write it.
    """
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with writing(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # what went wrong before says more than this would
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name the file that is written in an error of the system, which often does not.

    Args:
        path: of the file.
        temporary: the name under which it is written, if that is another one.

    Raises:
        OutputError: naming ``path``, if the system refuses to write it.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, MilAnalysisError) or not _is_about_output(error, path, temporary or path):
            raise
        raise OutputError.at(path, error) from error


def _is_about_output(error: OSError, path: Path, temporary: Path) -> bool:
    """Return whether an error is about the file that is written, and not about one that is read for it."""
    if isinstance(error.filename, str):
        named = Path(error.filename)
        return named.is_relative_to(temporary) or path.is_relative_to(named)
    # numpy says no more than how many items it has written
    return cannot_write(error) or (type(error) is OSError and error.errno is None)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, complete or not at all; keys keep their order, numbers are exact.

    Raises:
        ValueError: if a number is not finite, which JSON cannot hold.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that `write_json` has written.

    Raises:
        InputFileError: if it is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path} does not exist; it is written by an earlier stage of `milanalysis run`"
        raise InputFileError(msg) from error
    except (OSError, ValueError, RecursionError) as error:
        msg = (
            f"{path} is not a readable JSON file ({error}); delete it and run the stage that writes it again"
        )
        raise InputFileError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} should hold a JSON object and holds a {type(value).__name__}"
        raise InputFileError(msg)
    return value
