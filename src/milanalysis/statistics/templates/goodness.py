"""Whether the data fit the model: the bins of templates, and the shape of events against their number.

An interval is conditional on the model. Two tests say when it should not be believed: the goodness of fit of
the templates, and the compatibility of two likelihoods that are about to be combined, such as shape and rate.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from milanalysis.parameters import IntArray
from milanalysis.statistics.inference.fits import fit
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.templates.model import TemplateModel
from milanalysis.statistics.templates.systematics import FREE_BACKGROUND

__all__ = ["LEAST_COMPATIBLE", "Goodness", "compatibility", "goodness_of_fit"]

logger = logging.getLogger(__name__)

LEAST_COMPATIBLE = 1e-3
"""Probability below which a combination of two likelihoods is marked: 3.3 standard deviations."""

_FEWEST = 5.0  # expected events in every bin, for the chi-square distribution of the deviance
_REPEATED = 1000


def compatibility(shape: ProfileLikelihood, rate: ProfileLikelihood, saturated: float = 0.0) -> float | None:
    """Return the p-value of the difference between shape and rate if both have the same parameters.

    ``min(shape + rate) - min shape - saturated`` is compared with a chi-square distribution of one degree of
    freedom: the number of events is one measurement. For two Gaussian measurements ``a +- s`` and ``b +- t``
        it is
    ``(a - b)^2 / (s^2 + t^2)``. A number of events that no allowed value of the parameters explains counts in
    full.

    Args:
        shape: of what the events look like.
        rate: of how many there are, with parameters in common.
        saturated: ``-2 ln L`` of the rate if exactly the observed number of events is expected.

    Returns:
        None if a fit fails or nothing is shared.

    Source:
        The parameter goodness of fit, M. Maltoni and T. Schwetz, arXiv:hep-ph/0304176.
    """
    together = shape + rate
    shared = set(shape.parameters) & set(rate.parameters) - together.constraints.keys()
    total, own = fit(together).minimum, fit(shape).minimum
    if not shared or total is None or own is None:
        return None
    return float(chdtrc(1, max(total - own - saturated, 0.0)))


@dataclass(frozen=True)
class Goodness:
    """Goodness of fit of binned data.

    Attributes:
        deviance: ``-2 ln L`` at the minimum relative to a model that fits every bin perfectly.
        n_dof: bins minus free parameters.
        p_value: probability of a deviance at least as large.
        error: binomial error of that; 0 if it is from the chi-square distribution.
        source: where the probability comes from, in words.
    """

    deviance: float
    n_dof: int
    p_value: float
    error: float
    source: str


def goodness_of_fit(model: TemplateModel, counts: IntArray, rng: np.random.Generator) -> Goodness | None:
    """Test whether templates describe observed counts at any value of the parameter.

    With at least five expected events in every bin the deviance follows a chi-square distribution; with
    fewer, the fit is repeated on pseudo-experiments of the best fit, in which what is known about nuisance
    parameters and bins is measured anew, too.

    Args:
        model: the templates.
        counts: observed events in each bin, shape ``(n_bins,)``.
        rng: of the repetitions.

    Returns:
        None without events, where the fit or most of the repeated fits fail, or without degrees of freedom.

    Source:
        The saturated model; S. Baker and R. Cousins, Nucl. Instrum. Meth. 221 (1984) 437.
    """
    found = fit(model.observe_counts(counts))
    free = (0 if model.with_rate else 1) + (1 if FREE_BACKGROUND in model.nuisances else 0)
    n_dof = len(counts) - 1 - free
    if found.minimum is None or n_dof < 1 or not counts.sum():
        return None
    best = np.array(found.estimates, dtype=np.float64)
    contents = model.expected(best[None])[0]
    expected = contents if model.with_rate else contents * (counts.sum() / contents.sum())
    deviance = max(found.minimum, 0.0)
    if expected.min() >= _FEWEST:
        p_value = float(chdtrc(n_dof, deviance))
        return Goodness(deviance, n_dof, p_value, 0.0, "chi-square distribution")
    repeated = [fit(model.repeat(best, int(counts.sum()), rng)).minimum for _ in range(_REPEATED)]
    values = np.array([one for one in repeated if one is not None])
    if len(values) < _REPEATED // 2:
        logger.warning(
            "there is no goodness of fit of the templates: %d of %d fits to counts like the %d observed ones "
            "fail; use fewer bins",
            _REPEATED - len(values),
            _REPEATED,
            counts.sum(),
        )
        return None
    p_value = float(np.mean(values >= deviance - 1e-9))
    error = float(np.sqrt(p_value * (1 - p_value) / len(values)))
    return Goodness(deviance, n_dof, p_value, error, f"{len(values)} pseudo-experiments")
