"""Asymptotic CLs limits of the template analysis, through pyhf."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyhf
from scipy.optimize import brentq

from milanalysis.errors import ConfigError
from milanalysis.parameters import IntArray
from milanalysis.statistics.inference import check_level
from milanalysis.statistics.templates import TemplateModel, pyhf_backend

__all__ = ["CLsLimit", "cls_limit"]


@dataclass(frozen=True)
class CLsLimit:
    """Values of the parameter that are excluded, and what was expected at the reference.

    Attributes:
        observed: the limit; None if nothing up to the end of the range is excluded.
        expected: with the expected number of events and fluctuations by -2, -1, 0, 1 and 2 standard deviations.
        level: confidence level.
    """

    observed: float | None
    expected: tuple[float | None, ...]
    level: float


def cls_limit(model: TemplateModel, counts: IntArray, level: float = 0.95, *, upper: bool = True) -> CLsLimit:
    """Return the asymptotic CLs limit on the parameter, on one side of the reference.

    The other side is left out of the fit: the test statistic is ``q~`` with the reference as the bound.

    Args:
        model: the template analysis; its reference has to be 0.
        counts: observed events in each bin, shape ``(n_bins,)``.
        level: confidence level.
        upper: limit from above; otherwise from below.

    Raises:
        ConfigError: if the reference is not 0.

    Source:
        G. Cowan et al., arXiv:1007.1727; A. Read, J. Phys. G 28 (2002) 2693.
    """
    check_level(level)
    if model.parameter.reference != 0:
        msg = f"CLs compares with a parameter of 0, and the reference is {model.parameter.reference:g}; shift the parameter"
        raise ConfigError(msg)
    if not upper:  # the same with the sign of the parameter turned
        turned = replace(model.parameter, low=-model.parameter.high, high=-model.parameter.low)
        signs = (-1.0) ** np.arange(model.templates.contents.shape[1])
        templates = replace(model.templates, contents=model.templates.contents * signs)
        found = cls_limit(replace(model, templates=templates, parameter=turned), counts, level)
        observed, *expected = (None if one is None else -one for one in (found.observed, *found.expected))
        return CLsLimit(observed, tuple(expected), level)
    with pyhf_backend(
        "scipy"
    ):  # pyhf's minuit cannot do without a free parameter, and a count has none under test
        pdf = model.pyhf_model(counts)
        data = [*counts.astype(np.float64), *pdf.config.auxdata]
        bounds = pdf.config.suggested_bounds()
        high = model.parameter.high
        bounds[pdf.config.poi_index] = (0.0, high)

        @cache
        def cls(theta: float) -> tuple[float, ...]:
            one, others = pyhf.infer.hypotest(
                theta, data, pdf, test_stat="qtilde", par_bounds=bounds, return_expected_set=True
            )
            return (float(one), *(float(other) for other in others))

        limits = []
        for number in range(6):

            def excess(theta: float, number: int = number) -> float:
                return cls(theta)[number] - (1 - level)

            low = high * 1e-3
            crossed = excess(high) < 0 < excess(low)
            limits.append(float(brentq(excess, low, high, rtol=1e-4)) if crossed else None)
    return CLsLimit(limits[0], tuple(limits[1:]), level)
