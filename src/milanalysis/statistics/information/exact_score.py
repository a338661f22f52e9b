"""Exact scores of events and datasets, and the Fisher information they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milanalysis.parameters import EFTPolynomial, EventPolynomials, FloatArray, IntArray
from milanalysis.ratios.terms import EventTerms, PolynomialTerms
from milanalysis.statistics.repetition.datasets import Datasets

__all__ = ["ExactScore", "event_score", "exact_score", "rate_information"]

_STEP = 1e-3  # of the numerical derivative, in units of the parameter


@dataclass(frozen=True, eq=False)
class ExactScore:
    """The exact score of each pseudo-experiment, and the information it stands for.

    Attributes:
        values: ``d ln L / d theta`` of each dataset at the true value, shape ``(n_experiments,)``.
        information: Fisher information of a dataset.
        information_error: its standard error, from the finite number of events in the population. Where
            scores have long tails it is large, since a few events hold much of the information.
        common: `milanalysis.statistics.repetition.datasets.Datasets.common`; the fluctuation of the events
            that the datasets were drawn from adds ``common * Var(estimate)`` to the variance of a bias.
    """

    values: FloatArray
    information: float
    common: float = 0.0
    information_error: float = 0.0


def event_score(terms: EventTerms, theta: float) -> FloatArray:
    """Return ``d ln p(x|theta) / d theta`` of each event at one value of the parameter.

    For polynomial ratios the derivative is the exact one, otherwise the central difference of fourth order.

    Args:
        terms: log ratios of the events, defined at any point.
        theta: value of the parameter.

    Returns:
        Shape ``(n_events,)``.

    Raises:
        ValueError: if the log ratios are known on a grid only.
    """
    if terms.grid is not None:
        msg = "an exact score needs log ratios defined at any point, and these are known on a grid only"
        raise ValueError(msg)
    if isinstance(terms, PolynomialTerms):
        of_events = EventPolynomials(terms.polynomials).log_derivative(theta)
        of_rates = EventPolynomials(terms.rates).log_derivative(theta)
        exact: FloatArray = np.mean(of_events - of_rates[:, None], axis=0)
        return exact
    steps = np.array([-2.0, -1.0, 1.0, 2.0]) * _STEP
    weights = np.array([1.0, -8.0, 8.0, -1.0]) / (12 * _STEP)
    numerical: FloatArray = terms.per_event((theta + steps)[:, None]) @ weights
    return numerical


def exact_score(
    terms: EventTerms,
    rows: Datasets | IntArray | Sequence[IntArray],
    *,
    theta_true: float,
    weights: FloatArray,
    nu: EFTPolynomial | None = None,
) -> ExactScore:
    """Return the exact score of each dataset and the information of a dataset.

    Args:
        terms: exact log ratios of the events that the datasets were drawn from.
        rows: the datasets, as `milanalysis.statistics.repetition.pseudo_experiments.run` takes them.
        theta_true: value of the parameter that the datasets represent.
        weights: with which the events were drawn, shape ``(n_population,)``.
        nu: expected number of events, if the number is part of the measurement; then the score and the
            information contain the rate term of Eq. (1) of arXiv:2508.07114, and datasets should have been
            drawn with a Poisson number of events.

    Returns:
        Scores and ``information = N Var(s)``, with N the mean number of events and the variance over the
        population; with a rate term ``nu'^2 / nu`` is added.
    """
    datasets = Datasets.of(rows)
    score = event_score(terms, theta_true)
    probability = weights / weights.sum()
    mean = float(probability @ score)
    squares = (score - mean) ** 2
    variance = float(probability @ squares)
    error = float(np.sqrt(np.sum((probability * (squares - variance)) ** 2)))
    values = np.array([score[dataset].sum() for dataset in datasets.rows])
    counts = np.array([len(dataset) for dataset in datasets.rows], dtype=np.float64)
    n_events = float(counts.mean())
    if nu is None:
        return ExactScore(values, n_events * variance, datasets.common, n_events * error)
    expected = float(nu(theta_true))
    change = float(np.polynomial.Polynomial(nu.coefficients).deriv()(theta_true))
    values = values + counts * change / expected - change
    information = expected * variance + rate_information(nu, theta_true, expected)
    return ExactScore(values, information, datasets.common, expected * error)


def rate_information(
    nu: EFTPolynomial, theta: float, n_events: float, luminosity_uncertainty: float | None = None
) -> float:
    """Return the Fisher information of a number of events, ``n (nu' / nu)^2 / (1 + n ln(1 + delta)^2)``.

    The denominator is what a luminosity known to a factor ``1 + delta`` costs: its logarithm is a nuisance
    parameter with the information ``n + 1/ln(1 + delta)^2``, and ``n nu' / nu`` in common with the parameter.

    Args:
        nu: expected number of events, up to a factor.
        theta: value of the parameter.
        n_events: expected number of events there.
        luminosity_uncertainty: relative, delta; None if the luminosity is known.

    Example:
        >>> nu = EFTPolynomial(np.array([2.0, -0.36]))
        >>> rate_information(nu, 0.0, 1000), round(rate_information(nu, 0.0, 1000, 0.02), 3)
        (32.4, 23.273)
    """
    change = float(np.polynomial.Polynomial(nu.coefficients).deriv()(theta))
    known = 1.0 + n_events * math.log1p(luminosity_uncertainty or 0.0) ** 2
    return round(n_events * (change / float(nu(theta))) ** 2 / known, 12)
