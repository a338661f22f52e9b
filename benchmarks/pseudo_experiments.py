"""Time and quality of pseudo-experiments with the strong toy benchmark.

    python benchmarks/pseudo_experiments.py [n_experiments]

Prints, for every kind of likelihood, milliseconds for each fit with MINOS interval, and beside it how much of the
information it extracts. The last line is the bare sum of cached scores on 21 points, without fits.
"""

from __future__ import annotations

import sys
import time

import hist
import numpy as np

from milanalysis.config import ParameterConfig
from milanalysis.learning.scores import GridScores, PolynomialScores
from milanalysis.parameters import parameter_points
from milanalysis.randomness import stream
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.inference import measure
from milanalysis.statistics.information import exact_score, summarise
from milanalysis.statistics.interpolation import NaturalSpline, ParabolaWindow
from milanalysis.statistics.likelihood import LikelihoodModel, ShapeModel
from milanalysis.statistics.pseudoexperiments import draw, run
from milanalysis.statistics.templates import TemplateModel, Templates, quantile_edges

N_POPULATION, N_EVENTS = 200_000, 1000


def models(toy: QuadraticEFT) -> dict[str, LikelihoodModel]:
    """Return the exact likelihood in several forms, and templates in 20 bins of the exact score."""
    parameter = ParameterConfig(name="c")
    grid = parameter_points(np.linspace(-1, 1, 21).round(12))
    events, simulated = (toy.sample(stream(1, name), N_POPULATION) for name in ("test", "validation"))
    exact = PolynomialScores(toy.polynomials(events)[None], toy.rate.coefficients[None])
    on_grid = GridScores(grid, exact.per_event(grid))
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


def main() -> None:
    n_experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    methods = models(QuadraticEFT(0.3))
    weights = np.ones(N_POPULATION)
    rows = draw(weights, n_experiments, N_EVENTS, stream(1, "pseudo-experiments"))
    exact = methods["exact"].scores
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
        row = summarise(name, name, observed, fits, truth, theta_true=0.0)
        print(
            f"{name:10s} {cost:7.2f} {row.rho2:7.4f} {row.slope:7.3f} {row.mean_curvature / truth.information:9.4f} "
            f"{row.calibration_ratio:6.3f} {row.coverage.fraction:6.3f} {row.coverage.n_failed}"
        )
    start = time.perf_counter()
    methods["parabola"].scores.log_ratio(rows, methods["parabola"].scores.grid)
    print(f"sums of scores on 21 points: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
