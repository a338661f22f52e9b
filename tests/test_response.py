"""The response of an estimate, from samples at several values and from covariance with the exact score."""

from __future__ import annotations

import numpy as np
import pytest

from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import GaussianShift, ToyTerms
from milanalysis.statistics.coverage import response
from milanalysis.statistics.inference.fits import Status
from milanalysis.statistics.inference.outcomes import Interval
from milanalysis.statistics.information.comparison import exact_score, summarise
from milanalysis.statistics.likelihood.models import ShapeModel
from milanalysis.statistics.repetition.pseudo_experiments import MethodFits, PseudoExperiments, run

THETA = (-0.3, 0.0, 0.3)


def experiments(shrink):
    """300 datasets of 50 events at each true value, no event twice, with estimates shrunk by a factor."""
    toy, found, truth = GaussianShift(), [], None
    for theta in THETA:
        terms = ToyTerms(toy, toy.sample(np.random.default_rng(round(10 * theta) + 50), 15_000, theta))
        rows = np.arange(15_000).reshape(300, 50)
        one = run({"m": ShapeModel(terms, Parameter())}, rows, theta_true=theta)
        fits = one.methods["m"]
        moved = MethodFits(
            shrink * fits.estimate, fits.low, fits.high, fits.curvature, fits.status, fits.rise
        )
        found.append(PseudoExperiments(theta, 0.6827, one.n_events, {"m": moved}, one.group))
        if theta == 0:
            truth = exact_score(terms, rows, theta_true=0.0, weights=np.ones(15_000))
    return found, truth


@pytest.mark.parametrize("shrink", [1.0, 0.6])
def test_shifted_samples_and_the_exact_score_give_the_same_response(shrink):
    found, truth = experiments(shrink)
    shifted = response(found, "m")
    # the closed form of the error of a line through three means of 300 estimates of standard deviation
    # 1/sqrt(50)
    assert shifted.error == pytest.approx(shrink / np.sqrt(50 * 300) / np.sqrt(2 * 0.3**2), rel=0.1)
    assert shifted.value == pytest.approx(shrink, abs=4 * shifted.error)
    unknown = Interval(None, None, None, 0.6827, Status.UNKNOWN)
    summary = summarise(
        "m",
        "m",
        unknown,
        found[1].methods["m"],
        truth,
        theta_true=0.0,
        group=np.arange(300),
        rng=np.random.default_rng(1),
    )
    assert shifted.value == pytest.approx(summary.slope, abs=4 * np.hypot(shifted.error, summary.slope_error))


def test_one_true_value_has_no_response():
    found, _ = experiments(1.0)
    assert response(found[:1], "m") is None
