"""The traditional analysis of a run: the bins of its discriminant, and what is in them beside the signal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from milanalysis.errors import EventWeightError, TooFewEventsError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import read_json
from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray
from milanalysis.pipeline.run_files import SCORED, Run
from milanalysis.randomness import stream
from milanalysis.ratios.scored_events import ScoredEvents
from milanalysis.reporting.numbers import plus_minus
from milanalysis.statistics.calibration.calibrations import CalibrationSample
from milanalysis.statistics.likelihood.models import RateModel
from milanalysis.statistics.likelihood.nuisances import LUMINOSITY, LuminosityRateModel
from milanalysis.statistics.templates.bag_templates import learn_bag_templates
from milanalysis.statistics.templates.binning import information_edges, weight_response
from milanalysis.statistics.templates.contents import Templates, quantile_edges
from milanalysis.statistics.templates.systematics import BackgroundTemplate, TemplateSystematic

__all__ = [
    "BackgroundYield",
    "ExpectedEvents",
    "background_yield",
    "choose_edges",
    "discriminant_of",
    "of_bags",
    "scored_background",
    "with_nuisances",
]


def discriminant_of(run: Run, scored: ScoredEvents) -> tuple[EventTable, FloatArray]:
    """Return the validation events among simulated ones, and their discriminant, shape ``(n_events,)``."""
    discriminant = run.config.templates.discriminant
    validation = scored.take(scored.table.rows(Split.VALIDATION))
    values: FloatArray = validation.terms(discriminant.model).per_event(discriminant.theta)[:, 0]
    return validation.table, values


def choose_edges(run: Run, validation: EventTable, values: FloatArray) -> FloatArray:
    """Return the edges of the bins, shape ``(n_bins + 1,)``.

    Args:
        run: the analysis.
        validation: simulated events.
        values: their discriminant, shape ``(n_events,)``.
    """
    settings = run.config.templates
    contents = validation.weights_at(0.0) * validation.event_polynomials()
    weights, responses = weight_response(contents, run.config.parameter.reference)
    if settings.binning == "information":
        return information_edges(values, weights, responses, settings.bins)
    return quantile_edges(values, weights, settings.bins)


@dataclass(frozen=True)
class BackgroundYield:
    """The expected number of background events.

    Attributes:
        expected: the number that the analysis uses.
        from_cross_section: cross-section times luminosity times selection.
        error: Monte Carlo error of that.
        fraction: share of all selected events that was asked for instead; None: ``expected`` is from the
            cross-section.
    """

    expected: float
    from_cross_section: float
    error: float
    fraction: float | None

    def describe(self) -> str:
        """Return where the number comes from, in words.

        Example:
            >>> BackgroundYield(327.0, 661.0, 2.0, 0.2).describe()
            '327 background events: 20% of all, as asked for; their cross-section gives 661.0 ± 2.0'
        """
        known = plus_minus(self.from_cross_section, self.error)
        if self.fraction is None:
            return f"{known} background events: cross-section times luminosity times selection"
        return (
            f"{self.expected:.0f} background events: {self.fraction:.0%} of all, as asked for; their "
            f"cross-section gives {known}"
        )


@dataclass(frozen=True)
class ExpectedEvents:
    """Expected numbers of selected events.

    Attributes:
        total: of signal and background, as a polynomial in the coefficient.
        signal: of the signal alone.
        background: of the background; None if there is none.
    """

    total: EFTPolynomial
    signal: EFTPolynomial
    background: BackgroundYield | None


def background_yield(run: Run, nu: EFTPolynomial) -> BackgroundYield | None:
    """Return the expected number of background events; None without a background in the configuration.

    Args:
        run: the analysis.
        nu: expected number of signal events.

    Raises:
        EventWeightError: if the selected cross-section of the background is not positive.
    """
    background = run.config.background
    if background is None:
        return None
    path = run.table(background.sample)
    weight = EventTable.read(path, with_features=False).weight * run.config.luminosity_fb
    n_generated = read_json(path.parent / "cutflow.json")["n_read"]
    total = float(weight.sum())
    if not total > 0:
        msg = (
            f"the weights of the selected events of the background {background.sample!r} add up to {total:g} "
            "events, and an expected number has to be positive; check its weights and normalisation"
        )
        raise EventWeightError(msg)
    squares = float(weight @ weight)
    # a sample of which everything is selected still has the error of one event on its efficiency
    error = float(np.sqrt(max(squares - total**2 / n_generated, squares / n_generated)))
    if background.fraction is None:
        return BackgroundYield(total, total, error, None)
    share = background.fraction / (1 - background.fraction)
    expected = share * float(nu(run.config.parameter.reference))
    return BackgroundYield(expected, total, error, background.fraction)


def rate_model(run: Run, nu: EFTPolynomial) -> RateModel | LuminosityRateModel:
    """Return the likelihood of the event count, with the configured luminosity uncertainty.

    Args:
        run: the analysis.
        nu: expected number of all events.
    """
    uncertainty = run.config.luminosity_uncertainty
    if uncertainty is None:
        return RateModel(nu, run.config.parameter)
    return LuminosityRateModel(nu, run.config.parameter, uncertainty)


def scored_background(run: Run) -> ScoredEvents:
    """Return the background events that have log-ratio terms.

    Raises:
        TooFewEventsError: if there are none.
    """
    assert run.config.background is not None
    sample = run.config.background.sample
    scored = run.scored_sample(sample)
    if not all(len(scored.table.rows(split)) for split in SCORED):
        msg = (
            f"sample {sample!r} has no validation or no test events among its selected ones, so there is no "
            "background to learn from or to draw; generate more events, or enlarge the fractions of the "
            "split"
        )
        raise TooFewEventsError(msg)
    return scored


def with_nuisances(
    run: Run, templates: Templates, nu: EFTPolynomial, validation: EventTable, values: FloatArray
) -> Templates | None:
    """Return the templates in expected events, with background and systematics; None without templates.

    Args:
        run: the analysis.
        templates: of the signal alone.
        nu: expected number of signal events.
        validation: simulated events.
        values: their discriminant, shape ``(n_events,)``.
    """
    config = run.config
    if config.background is None and not validation.variations and config.luminosity_uncertainty is None:
        return None
    n_bins = len(templates.contents)
    bins = templates.bin_numbers(values)
    weights = validation.weights_at(config.parameter.reference)[:, 0]

    def contents(factors: FloatArray) -> FloatArray:
        return _filled(bins, weights * factors, n_bins)

    nominal = contents(np.ones(len(weights)))
    systematics = tuple(
        TemplateSystematic.of(name, nominal, *(contents(side / validation.weight) for side in varied.T))
        for name, varied in validation.variations.items()
    )
    luminosity: tuple[TemplateSystematic, ...] = ()
    if config.luminosity_uncertainty is not None:
        luminosity = (TemplateSystematic.of_total(LUMINOSITY, 1 + config.luminosity_uncertainty, n_bins),)
    return replace(
        templates,
        contents=templates.contents * (float(nu(0.0)) / templates.contents[:, 0].sum()),
        background=_background_template(run, templates, nu, luminosity),
        systematics=(*systematics, *luminosity),
    )


def of_bags(run: Run, scored: ScoredEvents) -> Templates | None:
    """Return the templates of whole bags, learned on validation events; None if the configuration wants none.

    Args:
        run: the analysis.
        scored: simulated events.
    """
    settings, discriminant = run.config.templates.of_bags, run.config.templates.discriminant
    if settings is None:
        return None
    return learn_bag_templates(
        scored.terms(discriminant.model),
        CalibrationSample.of(scored.table, scored.table.rows(Split.VALIDATION)),
        run.config.parameter,
        theta=discriminant.theta,
        bag_size=settings.bag_size,
        bins=settings.bins,
        n_bags=settings.bags,
        degree=settings.degree,
        rng=stream(run.config.seed, "templates", "bags"),
    )


def _background_template(
    run: Run, templates: Templates, nu: EFTPolynomial, shared: tuple[TemplateSystematic, ...]
) -> BackgroundTemplate | None:
    """Return the background in the bins of the discriminant; None if none is configured."""
    background, discriminant = run.config.background, run.config.templates.discriminant
    known = background_yield(run, nu)
    if background is None or known is None:
        return None
    scored = scored_background(run)
    validation = scored.take(scored.table.rows(Split.VALIDATION))
    bins = templates.bin_numbers(validation.terms(discriminant.model).per_event(discriminant.theta)[:, 0])
    weights = validation.table.weight * (known.expected / validation.table.weight.sum())
    n_bins = len(templates.contents)
    return BackgroundTemplate(
        _filled(bins, weights, n_bins),
        np.sqrt(_filled(bins, weights**2, n_bins)),
        "free" if background.uncertainty is None else background.uncertainty,
        shared,
    )


def _filled(bins: IntArray, weights: FloatArray, n_bins: int) -> FloatArray:
    """Return the sums of weights in bins, shape ``(n_bins,)``."""
    contents: FloatArray = np.bincount(bins, weights, n_bins).astype(np.float64)
    return contents
