"""Names in an analysis that must not be confused: of files, of rows of tables, of parameters of fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["require_different_files", "require_different_parameters", "require_different_rows"]

_METHODS = ("exact", "exact_visible", "template", "template_nuisances", "template_bags")
"""Names under which results hold the methods that are not models."""
_EXACT_ON_A_GRID = "exact_grid"
"""Beginning of the names of further ones, one for each grid."""


def require_different_files(what: str, names: Iterable[str]) -> None:
    """Refuse names that become the same file where upper and lower case count as one.

    Args:
        what: of which key of the configuration they are, for the message.
        names: of samples or of models.

    Raises:
        ValueError: naming two of them.
    """
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            msg = (
                f"{what}: {other!r} and {name!r} differ by upper and lower case only, and both become file "
                "names"
            )
            raise ValueError(msg)


def require_different_rows(titles: Mapping[str, str], calibrations: Mapping[str, Iterable[str]]) -> None:
    """Refuse models that could be taken for another row of the tables.

    Args:
        titles: of the models, by label.
        calibrations: names of the calibrations of each model that has some.

    Raises:
        ValueError: naming the model.
    """
    seen: dict[str, str] = {}
    for label, title in titles.items():
        if label in _METHODS or label.startswith(_EXACT_ON_A_GRID):
            msg = f"models.{label}: this is the name of a method that every comparison has; use another label"
            raise ValueError(msg)
        model, _, calibration = label.partition(".")
        if model in titles and calibration in calibrations.get(model, ()):
            msg = (
                f"models.{label}: this is the name of the row of models.{model} with its calibration; use "
                "another label"
            )
            raise ValueError(msg)
        if (other := seen.setdefault(title, label)) != label:
            msg = (
                f"models.{label}.title: {title!r} is the title of models.{other}, too; tables could not tell "
                "them apart"
            )
            raise ValueError(msg)


def require_different_parameters(parameter: str, variations: Mapping[str, Iterable[str]]) -> None:
    """Refuse weight variations that have the name of another parameter of the fit.

    Args:
        parameter: name of the parameter of interest.
        variations: names of the variations of each sample.

    Raises:
        ValueError: naming sample and variation.
    """
    taken = sorted({"background", "luminosity", parameter})
    for sample, names in variations.items():
        for name in names:
            if name in taken:
                msg = (
                    f"samples.{sample}.weight_variations.{name}: this is the name of another parameter of "
                    f"the fit ({', '.join(taken)}); use another name"
                )
                raise ValueError(msg)
