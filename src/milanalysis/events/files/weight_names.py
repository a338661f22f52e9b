"""The weights of a file: names and values of the coefficient -> indices, and what cannot be checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from milanalysis.errors import EventWeightError, InputFileError
from milanalysis.events.files.root_files import InputFile
from milanalysis.files.provenance import read_json

__all__ = ["names_of_weights", "places_of_weights", "points_in_order", "unchecked_order"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SAME = 1e-9


def points_in_order(
    sample: str,
    files: Sequence[InputFile],
    points: Sequence[float | None] | Mapping[str, float],
    names_file: Path | None,
) -> tuple[float | None, ...]:
    """Return the values of the coefficient in the order of the weights in the files.

    Args:
        sample: its name.
        files: of the sample.
        points: values in this order already, or by the names of the weights.
        names_file: JSON file with the names; None: those beside the files.

    Raises:
        EventWeightError: if the files do not say the names, have other ones, or have them in different
            orders; or say that other values belong to the weights.
    """
    if not isinstance(points, Mapping):
        orders = {_names_beside(file) for file in files}
        if len(orders) > len({frozenset(order) for order in orders}):
            raise EventWeightError(_different_orders(sample))
        listed = tuple(None if point is None else float(point) for point in points)
        for file in files:
            _refuse_other_points(sample, file, listed)
        return listed
    every = names_of_weights(sample, "weight_points", files, list(points), names_file)
    return tuple(points.get(name) for name in every)


def places_of_weights(
    sample: str, files: Sequence[InputFile], pair: tuple[int | str, int | str], names_file: Path | None
) -> tuple[int, int]:
    """Return the indices of two weights, counting from 0; arguments as for `points_in_order`."""
    named = [one for one in pair if isinstance(one, str)]
    every = names_of_weights(sample, "weight_variations", files, named, names_file) if named else ()
    up, down = (every.index(one) if isinstance(one, str) else one for one in pair)
    return up, down


def unchecked_order(
    files: Sequence[InputFile],
    points: Sequence[float | None],
    theta: float | None,
    *,
    degree: int = 4,
) -> str | None:
    """Say why a wrong order of weight points would not be noticed; None if it would.

    Weights lie on a polynomial only if they belong to the right points, or if the points are so few that
    there always is one, or if all points are mirrored at the generated one: that polynomial has the mirrored
    coefficient.

    Args:
        files: whose JSON files may say which weight is which.
        points: values of the coefficient in the order of the file, None for other weights.
        theta: value that the nominal weight belongs to; None if it is not known.
        degree: of the polynomial.
    """
    used = [point for point in points if point is not None]
    if not used or not files or all(_says_order(file, points) for file in files):
        return None
    for file in files:
        numbers = _numbers_of(file, points)
        if numbers and Counter(numbers) == Counter(used) and numbers != used:
            names = ", ".join(_names_beside(file))
            return (
                f"the names of the weights in the JSON file beside {file.path} ({names}) are in another order"
            )
    known = used if theta is None else [*used, theta]
    if len(set(known)) <= degree + 1:
        return f"{len(set(known))} weights fit a polynomial of degree {degree} in any order"
    centre = theta if theta is not None else (min(known) + max(known)) / 2
    if all(any(abs(2 * centre - one - other) <= _SAME for other in known) for one in known):
        return f"the points are symmetric about {centre:g}, so that they fit as well in reverse"
    return None


def _refuse_other_points(sample: str, file: InputFile, points: Sequence[float | None]) -> None:
    """Refuse values that contradict those which the built-in generator has written beside a file."""
    stated = _stated_points(file, points)
    if any(point not in (None, known) for point, known in zip(points, stated, strict=False)):
        msg = (
            f"sample {sample!r}: the JSON file beside {file.path} says that its weights belong to "
            f"{', '.join(f'{point:g}' for point in stated)}, and weight_points has other values or another "
            "order"
        )
        raise EventWeightError(msg)


def _stated_points(file: InputFile, points: Sequence[float | None]) -> Sequence[float]:
    """Return the coefficient values in the JSON file beside a file, if as many as those given."""
    stated = file.description.get("weight_points")
    if not isinstance(stated, list) or len(stated) != len(points):
        return ()
    return stated if all(type(one) in (int, float) for one in stated) else ()


def _says_order(file: InputFile, points: Sequence[float | None]) -> bool:
    """Return whether the JSON file beside a ROOT file says that the weights belong to these points."""
    return bool(_stated_points(file, points)) or _numbers_of(file, points) == [
        p for p in points if p is not None
    ]


def _numbers_of(file: InputFile, points: Sequence[float | None]) -> list[float]:
    """Return the numbers at the ends of the names of weights that have a point; empty without any."""
    names = _names_beside(file)
    if len(names) != len(points):
        return []
    found = [_NUMBER.findall(name) for name, point in zip(names, points, strict=True) if point is not None]
    return [float(numbers[-1]) for numbers in found] if all(found) else []


def names_of_weights(
    sample: str, key: str, files: Sequence[InputFile], wanted: Sequence[str], names_file: Path | None
) -> tuple[str, ...]:
    """Return the names of the weights in the order of the files; empty without files.

    Args:
        sample: its name.
        key: of the configuration that names weights.
        files: of the sample.
        wanted: names that have to be there.
        names_file: JSON file with the names; None: those beside the files.

    Raises:
        EventWeightError: if a file does not say them, lacks one that is wanted or has it twice, or has
            another order of these.
    """
    given = _stated_names(names_file) if names_file is not None else ()
    orders = []
    for file in files:
        origin = names_file or file.path.with_suffix(".json")
        names = given if names_file is not None else _names_beside(file)
        if not names:
            msg = (
                f"sample {sample!r} gives {key} by name, and {origin} does not say the names of the weights "
                f"in {file.path}; make it with `milanalysis convert`, or list the values in the order of the "
                "file"
            )
            raise EventWeightError(msg)
        for what, found in (
            ("no weight", sorted(set(wanted) - set(names))),
            ("twice the weight", sorted(name for name in set(wanted) if names.count(name) > 1)),
        ):
            if found:
                msg = f"sample {sample!r}: {origin} has {what} {', '.join(found)}; it has {', '.join(names)}"
                raise EventWeightError(msg)
        orders.append(names)
    if len({tuple(name if name in wanted else None for name in names) for names in orders}) > 1:
        raise EventWeightError(_different_orders(sample))
    return orders[0] if orders else ()


def _different_orders(sample: str) -> str:
    """Say that no list of places fits all files."""
    return (
        f"the files of sample {sample!r} have their weights in different orders; make a sample of each kind"
    )


def _names_beside(file: InputFile) -> tuple[str, ...]:
    """Return the names of the weights that the JSON file beside a ROOT file says; empty if it says none."""
    stated = file.description.get("weight_names")
    return tuple(map(str, stated)) if isinstance(stated, list) else ()


def _stated_names(path: Path) -> tuple[str, ...]:
    """Return the names of weights that a JSON file of the user says."""
    try:
        stated = read_json(path).get("weight_names")
        if not isinstance(stated, list):
            msg = f"weight_names is {stated!r:.40}"
            raise InputFileError(msg)
        return tuple(map(str, stated))
    except InputFileError as error:
        msg = f'{path}, named under weight_names, should be a JSON file {{"weight_names": [...]}} ({error})'
        raise EventWeightError(msg) from error
