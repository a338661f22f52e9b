"""The template analysis of the observed events, as it stands in the results."""

from __future__ import annotations

from dataclasses import dataclass

from milanalysis.statistics.inference.outcomes import FitResult
from milanalysis.statistics.templates.contents import Templates
from milanalysis.statistics.templates.goodness import Goodness

__all__ = ["TemplateResult"]


@dataclass(frozen=True, eq=False)
class TemplateResult:
    """The template analysis of the observed events.

    Attributes:
        parameter: name of the parameter of interest.
        discriminant: what the bins are bins of, in words.
        templates: the expected contents.
        counts: observed events in each bin.
        fit: what pyhf found.
        with_nuisances: the contents with background and systematic uncertainties, in expected events; None if
            there are none.
        fit_with_nuisances: what pyhf found with these.
        of_bags: the contents of bins of whole bags; None if there are none.
        goodness: of the fit, with background and systematic uncertainties if there are some; None if it
            cannot be said.
    """

    parameter: str
    discriminant: str
    templates: Templates
    counts: tuple[int, ...]
    fit: FitResult
    with_nuisances: Templates | None = None
    fit_with_nuisances: FitResult | None = None
    of_bags: Templates | None = None
    goodness: Goodness | None = None
