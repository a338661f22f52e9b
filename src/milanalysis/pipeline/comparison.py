"""The comparison of methods: pseudo-experiments and single events put side by side with the exact answer."""

from __future__ import annotations

from functools import partial

import numpy as np

from milanalysis.events.tables import EventTable, Split
from milanalysis.parameters import FloatArray
from milanalysis.pipeline.methods import EXACT, EXACT_VISIBLE, Methods
from milanalysis.pipeline.pseudo_experiments import expected_signal
from milanalysis.pipeline.run_files import Run, truth_of_run
from milanalysis.randomness import stream
from milanalysis.ratios.terms import PolynomialTerms
from milanalysis.ratios.whole_bags import BagTerms
from milanalysis.statistics.calibration.calibrations import Measured, RescaledModel
from milanalysis.statistics.inference.fits import Interval, Status
from milanalysis.statistics.information.captured import Captured, captured
from milanalysis.statistics.information.comparison import Comparison, FisherInformation, compare
from milanalysis.statistics.information.exact_score import ExactScore, exact_score, rate_information
from milanalysis.statistics.likelihood.models import EventRatios, LikelihoodModel, ShapeModel
from milanalysis.statistics.observation import Observation
from milanalysis.statistics.repetition.datasets import Datasets, draw
from milanalysis.statistics.repetition.pseudo_experiments import PseudoExperiments

__all__ = ["compare_methods"]

_EVENTS_IN_BAGS, _LEAST_BAGS = 200_000, 400
"""How many events are looked at in bags, and how many bags at least."""


def compare_methods(
    run: Run,
    experiments: PseudoExperiments,
    methods: Methods,
    *,
    datasets: Datasets,
    weights: FloatArray,
    scored: EventTable,
    observation: Observation,
) -> Comparison:
    """Compare all methods with the exact likelihood.

    Args:
        run: the analysis.
        experiments: pseudo-experiments at one true value.
        methods: what was fitted to them.
        datasets: their events.
        weights: with which these were drawn, shape ``(n_events,)``.
        scored: the events that the methods know.
        observation: what the methods say about the observed events.
    """
    config = run.config
    assert methods.exact_terms is not None  # simulated events have event weights

    def truth(terms: PolynomialTerms) -> ExactScore:
        return exact_score(terms, datasets, theta_true=experiments.theta_true, weights=weights)

    exact, visible = truth(methods.exact_terms), None
    if methods.visible_terms is not None:
        visible = truth(methods.visible_terms)
    unknown = Interval(None, None, None, config.inference.level, Status.UNKNOWN)
    n_test = int((scored.split == Split.TEST).sum())
    return compare(
        experiments,
        exact,
        {
            name: observation.methods[name].shape if name in observation.methods else unknown
            for name in methods.titles
        },
        titles=methods.titles,
        parameter=config.parameter.name,
        n_observed=observation.n_observed,
        information=_information(run, exact, visible, experiments, n_test),
        rng=partial(stream, config.seed, "coverage", "bootstrap"),
        exact_method=EXACT if visible is None else EXACT_VISIBLE,
        captured=_captured(run, methods, scored),
        information_rate=_rate_information(run, experiments),
        overlap=datasets.overlap,
    )


def _rate_information(run: Run, experiments: PseudoExperiments) -> float | None:
    """Return the exact information of the number of signal events; None if the data contain background."""
    if run.config.background is not None:
        return None
    n_events = float(experiments.n_events.mean())
    return rate_information(
        expected_signal(run), experiments.theta_true, n_events, run.config.luminosity_uncertainty
    )


def _information(
    run: Run, exact: ExactScore, visible: ExactScore | None, experiments: PseudoExperiments, n_test: int
) -> FisherInformation:
    """Return the exact information, by a phase-space integral if that is about these events, or from them."""
    n_events, theta_true = float(experiments.n_events.mean()), experiments.theta_true
    known = truth_of_run(run)
    if known is not None and theta_true == known.theta:
        best = known.levels[1]  # visible; with a beam that is known, that
        return FisherInformation(
            joint=Measured(n_events * known["joint"].shape, n_events * known["joint"].shape_error),
            visible=None if visible is None else Measured(n_events * best.shape, n_events * best.shape_error),
            source=f"integrated over {known.n_points:,} phase-space points",
        )
    own = [
        None if one is None else Measured(one.information, one.information_error) for one in (exact, visible)
    ]
    assert own[0] is not None
    return FisherInformation(
        joint=own[0], visible=own[1], source=f"variance of the score of {n_test:,} test events"
    )


def _captured(run: Run, methods: Methods, scored: EventTable) -> dict[str, tuple[Captured, ...]]:
    """Return the captured fractions of each method on the test events, at the two configured values."""
    config = run.config
    reference = config.parameter.reference
    terms = methods.exact_terms if methods.visible_terms is None else methods.visible_terms
    assert terms is not None  # simulated events have event weights
    exact = ShapeModel(terms, config.parameter)
    test = scored.rows(Split.TEST)
    weights = scored.weights_at([reference, *config.captured_at()])
    found: dict[str, list[Captured]] = {}
    for column, theta in enumerate(config.captured_at(), start=1):
        exact_ratios = exact.event_log_ratios(theta, reference)
        assert exact_ratios is not None  # it is defined at any point
        for name, model in methods.models().items():
            rng = stream(config.seed, "coverage", "captured", column)
            if _is_of_bags(model):
                is_test = scored.split == Split.TEST
                at_points = np.where(is_test[:, None], weights[:, [column, 0]], 0.0)
                one = _captured_by_bags(model, exact, theta, reference, at_points, rng)
            else:
                ratios = model.event_log_ratios(theta, reference) if isinstance(model, EventRatios) else None
                one = None
                if ratios is not None:
                    one = captured(
                        ratios[test],
                        exact_ratios[test],
                        theta=theta,
                        weights=weights[test, column],
                        reference_weights=weights[test, 0],
                        rng=rng,
                    )
            if one is not None:
                found.setdefault(name, []).append(one)
    return {name: tuple(some) for name, some in found.items()}


def _is_of_bags(model: LikelihoodModel) -> bool:
    """Say whether the log ratio of a method, as it is or calibrated, is one of whole bags."""
    inner = model.model if isinstance(model, RescaledModel) else model
    return isinstance(inner, ShapeModel) and isinstance(inner.terms, BagTerms)


def _captured_by_bags(
    model: LikelihoodModel,
    exact: ShapeModel,
    theta: float,
    reference: float,
    weights: FloatArray,
    rng: np.random.Generator,
) -> Captured | None:
    """Return the captured fractions of a ratio of bags, on bags drawn from theta and from the reference.

    Calibrated forms of such ratios are left out, and values of the parameter that are not on the grid.

    Args:
        model: whose log ratios are those of bags.
        exact: the exact ratio of the same events.
        theta: value of the parameter.
        reference: that it is compared with.
        weights: of the events at both, shape ``(n_events, 2)``.
        rng: source of randomness.
    """
    if not isinstance(model, ShapeModel) or not isinstance(model.terms, BagTerms):
        return None
    points = np.array([[theta], [reference]])
    if (np.abs(model.terms.grid[:, 0] - points) > 1e-9).all(axis=1).any():
        return None
    size = model.terms.bag_size
    n_bags = max(_LEAST_BAGS, _EVENTS_IN_BAGS // size)
    rows = np.concatenate([draw(one, n_bags, size, rng) for one in weights.T])
    ratios, exact_ratios = (np.subtract(*one.log_ratio(rows, points).T) for one in (model.terms, exact.terms))
    at_theta = np.repeat([1.0, 0.0], n_bags)
    return captured(
        ratios, exact_ratios, theta=theta, weights=at_theta, reference_weights=1 - at_theta, rng=rng
    )
