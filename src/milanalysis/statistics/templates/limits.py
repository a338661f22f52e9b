"""Asymptotic CLs limits of the template analysis, through pyhf."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyhf
from scipy.optimize import brentq

from milanalysis.errors import ConfigError
from milanalysis.parameters import IntArray
from milanalysis.statistics.inference.fits import check_level
from milanalysis.statistics.templates.model import TemplateModel, pyhf_backend

__all__ = ["CLsLimit", "Outcome", "TemplateLimits", "cls_limit"]


class Outcome(enum.StrEnum):
    """What came out of the search for a limit."""

    LIMIT = "limit"
    """Values beyond the limit are excluded."""
    NOTHING_EXCLUDED = "nothing excluded"
    """Nothing up to the end of the range of the parameter is excluded."""
    ALL_EXCLUDED = "all excluded"
    """Everything in the range is excluded, down to the reference."""
    UNKNOWN = "unknown"
    """The fits of pyhf fail: the data are far from what is expected at any value of the parameter."""


@dataclass(frozen=True)
class CLsLimit:
    """Values of the parameter that are excluded, and what was expected at the reference.

    Attributes:
        observed: the limit; None if there is none.
        expected: with the expected number of events and fluctuations by -2, -1, 0, 1 and 2 standard
            deviations.
        level: confidence level.
        outcomes: why there is a limit or none, of the observed one and of those expected.
    """

    observed: float | None
    expected: tuple[float | None, ...]
    level: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class TemplateLimits:
    """Limits from both sides; None where the analysis does not ask for them."""

    lower: CLsLimit | None
    upper: CLsLimit | None


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
        msg = (
            f"CLs compares with a parameter of 0, and the reference is {model.parameter.reference:g}; shift "
            "the parameter"
        )
        raise ConfigError(msg)
    if not upper:  # the same with the sign of the parameter turned
        turned = replace(model.parameter, low=-model.parameter.high, high=-model.parameter.low)
        signs = (-1.0) ** np.arange(model.templates.contents.shape[1])
        templates = replace(model.templates, contents=model.templates.contents * signs)
        found = cls_limit(replace(model, templates=templates, parameter=turned), counts, level)
        observed, *expected = (None if one is None else -one for one in (found.observed, *found.expected))
        return CLsLimit(observed, tuple(expected), level, found.outcomes)
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
            try:
                one, others = pyhf.infer.hypotest(
                    theta, data, pdf, test_stat="qtilde", par_bounds=bounds, return_expected_set=True
                )
            except pyhf.exceptions.FailedMinimization:
                return (np.nan,) * 6
            return (float(one), *(float(other) for other in others))

        between = (model.parameter.high * 1e-3, model.parameter.high)
        ends = cls(between[0]), cls(between[1])
        every = [
            _crossing(cls, number, 1 - level, between, (ends[0][number], ends[1][number]))
            for number in range(6)
        ]
    limits = [one for one, _ in every]
    return CLsLimit(limits[0], tuple(limits[1:]), level, tuple(outcome for _, outcome in every))


def _crossing(
    cls: Callable[[float], tuple[float, ...]],
    number: int,
    wanted: float,
    between: tuple[float, float],
    ends: tuple[float, float],
) -> tuple[float | None, Outcome]:
    """Return where CLs falls to a value, or why it does not.

    Args:
        cls: all CLs values at a value of the parameter.
        number: which of them.
        wanted: the value.
        between: the reference and the end of the range.
        ends: CLs at these.
    """
    if not np.isfinite(ends).all():
        return None, Outcome.UNKNOWN
    if ends[0] < wanted:
        return None, Outcome.ALL_EXCLUDED
    if ends[1] > wanted:
        return None, Outcome.NOTHING_EXCLUDED
    try:
        return float(brentq(lambda theta: cls(theta)[number] - wanted, *between, rtol=1e-4)), Outcome.LIMIT
    except ValueError:  # a value between is not a number
        return None, Outcome.UNKNOWN
