"""The template analysis of the observed events, as it stands in the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from milanalysis.statistics.inference.outcomes import FitResult
from milanalysis.statistics.templates.goodness import Goodness
from milanalysis.statistics.templates.templates import Templates

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
        with_nuisances: the contents with background and systematic uncertainties, in expected events; None if there are
            none.
        fit_with_nuisances: what pyhf found with these.
        of_bags: the contents of bins of whole bags; None if there are none.
        goodness: of the fit, with background and systematic uncertainties if there are some; None if it cannot be said.
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

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-like form."""
        return {
            "parameter": self.parameter,
            "discriminant": self.discriminant,
            "templates": self.templates.to_dict(),
            "counts": list(self.counts),
            "fit": self.fit.to_dict(),
            "with_nuisances": None if self.with_nuisances is None else self.with_nuisances.to_dict(),
            "fit_with_nuisances": None
            if self.fit_with_nuisances is None
            else self.fit_with_nuisances.to_dict(),
            "of_bags": None if self.of_bags is None else self.of_bags.to_dict(),
            "goodness": None if self.goodness is None else asdict(self.goodness),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TemplateResult:
        """Make a result from what `to_dict` returned."""
        full, fit, bags = values["with_nuisances"], values["fit_with_nuisances"], values["of_bags"]
        return cls(
            values["parameter"],
            values["discriminant"],
            Templates.from_dict(values["templates"]),
            tuple(values["counts"]),
            FitResult.from_dict(values["fit"]),
            None if full is None else Templates.from_dict(full),
            None if fit is None else FitResult.from_dict(fit),
            None if bags is None else Templates.from_dict(bags),
            None if values["goodness"] is None else Goodness(**values["goodness"]),
        )
