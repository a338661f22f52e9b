"""Time and quality of pseudo-experiments with the strong toy benchmark.

    python benchmarks/pseudo_experiments.py [n_experiments]

Prints, for every kind of likelihood, milliseconds for each fit with MINOS interval, and beside it how much of
the information it extracts. Then the time of 2000 experiments of 1000 events on 21 points, fits and intervals
included, and beside it that of the straightforward way in the same run: every dataset's log ratios computed
anew and summed, a parabola of numpy.polyfit, and iminuit as it comes. The last line is the bare sum of cached
terms, without fits.
"""

from __future__ import annotations

import sys
import time

import hist
import numpy as np
from iminuit import Minuit

from milanalysis.parameters import FloatArray, IntArray, Parameter, parameter_points
from milanalysis.randomness import stream
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.inference.fits import measure
from milanalysis.statistics.information.comparison import exact_score, summarise
from milanalysis.statistics.likelihood.interpolation import NaturalSpline, ParabolaWindow
from milanalysis.statistics.likelihood.models import LikelihoodModel, ShapeModel
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import run
from milanalysis.statistics.templates.contents import Templates, quantile_edges
from milanalysis.statistics.templates.model import TemplateModel

N_POPULATION, N_EVENTS = 200_000, 1000


def models(toy: QuadraticEFT) -> dict[str, LikelihoodModel]:
    """Return the exact likelihood in several forms, and templates in 20 bins of the exact score."""
    parameter = Parameter(name="c")
    grid = parameter_points(np.linspace(-1, 1, 21).round(12))
    events, simulated = (toy.sample(stream(1, name), N_POPULATION) for name in ("test", "validation"))
    exact = PolynomialTerms(toy.polynomials(events)[None], toy.rate.coefficients[None])
    on_grid = GridTerms(grid, exact.per_event(grid))
    discriminant, simulated_discriminant = toy.amplitudes(events)[0], toy.amplitudes(simulated)[0]
    histogram = hist.Hist(
        hist.axis.Variable(quantile_edges(simulated_discriminant, np.ones(N_POPULATION), 20), flow=False),
        hist.axis.Integer(0, 5, flow=False),
        storage=hist.storage.Weight(),
    )
    for power, weights in enumerate(toy.polynomials(simulated).T):
        histogram.fill(simulated_discriminant, power, weight=weights)
    templates = Templates.from_hist(histogram, nu=N_EVENTS)
    return {
        "exact": ShapeModel(exact, parameter),
        "parabola": ShapeModel(on_grid, parameter, ParabolaWindow()),
        "spline": ShapeModel(on_grid, parameter, NaturalSpline()),
        "template": TemplateModel(templates, templates.bin_numbers(discriminant), parameter),
    }


def straightforward(toy: QuadraticEFT, events: FloatArray, datasets: IntArray) -> FloatArray:
    """Return estimate and interval of every dataset, each fitted afresh, shape ``(n_experiments, 3)``."""
    grid = parameter_points(np.linspace(-1, 1, 21).round(12))
    found = []
    for rows in datasets:
        values = -2 * toy.log_ratio(events[rows], grid).sum(axis=0)
        near = np.abs(grid[:, 0] - grid[values.argmin(), 0]) < 0.4 + 1e-9
        fit = Minuit(np.poly1d(np.polyfit(grid[near, 0], values[near], 2)), 0.0, name=("c",))
        fit.errordef, fit.limits["c"] = 1.0, (-1, 1)
        fit.migrad()
        fit.minos()
        errors = fit.merrors["c"]  # codespell:ignore merrors
        found.append([fit.values["c"], fit.values["c"] + errors.lower, fit.values["c"] + errors.upper])
    return np.array(found)


def compare_times(n_experiments: int = 2000, n_straightforward: int = 100) -> None:
    """Print the time of many experiments on a grid, and of the same done the straightforward way."""
    toy, rng = QuadraticEFT(0.3), stream(2, "times")
    events, grid = toy.sample(rng, N_POPULATION), parameter_points(np.linspace(-1, 1, 21).round(12))
    terms = GridTerms(grid, toy.log_ratio(events, grid))
    model = ShapeModel(terms, Parameter(name="c"), ParabolaWindow())
    rows = draw(np.ones(N_POPULATION), n_experiments, N_EVENTS, rng)
    start = time.perf_counter()
    fits = run({"parabola": model}, rows, theta_true=0.0).methods["parabola"]
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    found = straightforward(toy, events, rows[:n_straightforward])
    per_experiment = (time.perf_counter() - start) / n_straightforward
    ours = np.stack([fits.estimate, fits.low, fits.high], axis=1)[:n_straightforward]
    print(
        f"{n_experiments} x {N_EVENTS} events on 21 points with fits and intervals: {seconds:.2f} s; the "
        f"straightforward way {per_experiment * n_experiments:.2f} s (from {n_straightforward}), "
        f"{per_experiment * n_experiments / seconds:.1f} times as long; largest difference "
        f"{np.abs(ours - found).max():.1e}"
    )
    start = time.perf_counter()
    terms.log_ratio(rows, grid)
    print(f"sums of terms on 21 points alone: {time.perf_counter() - start:.2f} s")


def main() -> None:
    n_experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    methods = models(QuadraticEFT(0.3))
    weights = np.ones(N_POPULATION)
    rows = draw(weights, n_experiments, N_EVENTS, stream(1, "pseudo-experiments"))
    exact = methods["exact"].terms
    truth = exact_score(exact, rows, theta_true=0.0, weights=weights)
    print(f"{n_experiments} x {N_EVENTS} events, information {truth.information:.1f}")
    print(
        f"{'':10s} {'ms/fit':>7s} {'rho2':>7s} {'slope':>7s} {'I_curv/I':>9s} {'c':>6s} {'cover':>6s} failed"
    )
    for name, model in methods.items():
        start = time.perf_counter()
        fits = run({name: model}, rows, theta_true=0.0).methods[name]
        cost = (time.perf_counter() - start) / n_experiments * 1e3
        observed = measure(model.observe(rows[0]))[1]
        row = summarise(name, name, observed, fits, truth, theta_true=0.0, rng=stream(1, "bootstrap"))
        print(
            f"{name:10s} {cost:7.2f} {row.rho2:7.4f} {row.slope:7.3f} "
            f"{row.mean_curvature / truth.information:9.4f} {row.calibration_ratio:6.3f} "
            f"{row.coverage.fraction:6.3f} {row.coverage.n_failed}"
        )
    compare_times()


if __name__ == "__main__":
    main()
