"""Paths as users write them: home directory, variables, patterns, links; files on local disks."""

from __future__ import annotations

import glob
import os
import re
import stat
from pathlib import Path
from typing import Any

from milanalysis.errors import ConfigError, InputFileError

__all__ = [
    "absolute_path",
    "beside",
    "matching_files",
    "problem_with_file",
    "refuse_address",
]

_ADDRESS = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|(\w+))")


def refuse_address(value: Any) -> Any:
    """Return what was written, unless it is the address of a file on another machine.

    Raises:
        ValueError: showing the address as it was written (as a path it would lose one of its slashes).
    """
    found = _ADDRESS.match(value) if isinstance(value, str) else None
    if found is None:
        return value
    if found[1].lower() == "file":
        advice = "write the path alone, without file://"
    else:
        advice = "remote files are not supported, copy it to a local disk (or mount it) and give its path"
    msg = f"{value!r} is an address: {advice}"
    raise ValueError(msg)


def absolute_path(path: Path, base: Path) -> Path:
    """Return the absolute form of a path in a configuration.

    ``~`` and ``$NAME`` or ``${NAME}`` are expanded unless there is a file of just this name. A link at the
    end of the path stays a link, since what describes a file may stand beside either.

    Args:
        path: as it was written.
        base: where relative paths start.

    Raises:
        ConfigError: if a variable is not set, or a user has no home directory.
    """
    text = str(path)
    if (text.startswith("~") or "$" in text) and not os.path.lexists(base / path):
        unset = [name for pair in _VARIABLE.findall(text) for name in pair if name and name not in os.environ]
        if unset:
            msg = f"{text}: the environment variable {unset[0]} is not set; set it, or write the path in full"
            raise ConfigError(msg)
        try:
            path = Path(os.path.expandvars(text)).expanduser()
        except RuntimeError as error:
            msg = f"{text}: the home directory is not known ({error}); write the path in full"
            raise ConfigError(msg) from error
    path = base / path
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def matching_files(path: Path) -> tuple[Path, ...]:
    """Return the files that a path or pattern stands for, in alphabetical order.

    Only what does not exist is a pattern: ``run[1]/*.root`` are the files in ``run[1]`` if there is such a
    directory.

    Raises:
        InputFileError: if a pattern matches nothing.
    """
    exists = next(one for one in (path, *path.parents) if os.path.lexists(one) or one == one.parent)
    rest = str(path.relative_to(exists))
    if exists == path or not glob.has_magic(rest):
        return (path,)
    matches = sorted(exists / match for match in glob.glob(rest, root_dir=exists, recursive=True))  # noqa: PTH207
    if not matches:
        msg = f"{path}: no file matches this pattern; check it, relative ones start at the configuration"
        raise InputFileError(msg)
    return tuple(matches)


def problem_with_file(path: Path, suffix: str = ".root") -> str | None:
    """Say why a path does not lead to a file that can be read; None if it does.

    Args:
        path: of the file.
        suffix: of such files, for advice about a directory.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            return f"{path} is a link to {path.readlink()}, which does not exist"
        name, colon, tree = str(path).rpartition(f"{suffix}:")
        advice = f" (give the name of the tree, {tree!r}, under format: tree, and the file without it)"
        return f"{path}: there is no such file{advice if name and colon and tree else ''}"
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        return f"{path} cannot be reached ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(mode):
        return f"{path} is a directory; give the files in it, such as {path / f'*{suffix}'}"
    if not stat.S_ISREG(mode):
        return f"{path} is not a regular file"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read: you have no permission to read it (chmod u+r, or ask its owner)"
    return None


def beside(path: Path, suffix: str = ".json") -> Path | None:
    """Return the file with another suffix beside a file or beside its link target; None without either.

    It is returned, too, if it cannot be read: whoever needs it says so.
    """
    try:
        places = dict.fromkeys((path, path.resolve()))
    except (OSError, RuntimeError):  # links in a circle
        return None
    for one in places:
        if os.path.lexists(one.with_suffix(suffix)):
            return one.with_suffix(suffix)
    return None
