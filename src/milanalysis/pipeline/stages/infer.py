"""The stage that evaluates the models in the bag processor and fits every method to the observed events."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanalysis.config import AnyModelConfig
from milanalysis.errors import AccountingError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import write_json
from milanalysis.files.records import to_plain, write_record
from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray
from milanalysis.pipeline.inputs import (
    run_bag_processor,
    selected_yield,
)
from milanalysis.pipeline.run_files import SCORED, Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    background_of,
    background_table,
    event_files,
    exact_of,
    models_of,
    tables_of,
    truth_of,
)
from milanalysis.randomness import stream
from milanalysis.ratios.terms import GridTerms, PolynomialTerms
from milanalysis.terminal import console

if TYPE_CHECKING:
    from milanalysis.pipeline.methods import Methods
    from milanalysis.statistics.templates.limits import TemplateLimits

__all__ = ["STAGE", "infer"]

logger = logging.getLogger(__name__)

_SAME = 1e-5
"""Relative difference between log ratios of bags and sums over their events that float32 may cause."""
_BAG_OUTPUT = (
    "a bag processor returns 'event_id', and for each model 'points', 'bags', 'counts' and, where its ratio "
    "is a sum over events, 'terms', as processors/bag_likelihood.py does"
)
_PROFILE_POINTS = 201


def infer(run: Run) -> Sequence[Path]:
    """Evaluate the models inside the bag processor, and fit every method to the observed events."""
    from milanalysis.learning.models.stored import Manifest
    from milanalysis.pipeline.methods import TEMPLATE_NUISANCES, Methods, has_background
    from milanalysis.pipeline.template_analysis import (
        ExpectedEvents,
        background_yield,
        choose_edges,
        discriminant_of,
        of_bags,
        rate_model,
        with_nuisances,
    )
    from milanalysis.statistics.observation import observe
    from milanalysis.statistics.templates.contents import Templates
    from milanalysis.statistics.templates.goodness import goodness_of_fit
    from milanalysis.statistics.templates.result import TemplateResult

    config = run.config
    # the networks see the features of simulated events in the processor
    names, simulated = run.feature_names("simulation"), run.load_table("simulation", with_features=False)
    for label, model in config.models.items():
        Manifest.read(run.model(label)).require(model, config.reference_point(), names)

    written = []
    backgrounds = () if config.background is None else (config.background.sample,)
    for name in (*config.samples_with_role("simulation"), *backgrounds):
        written += _score(run, name, SCORED)
    for name in config.samples_with_role("observed"):
        written += _score(run, name, tuple(Split))

    scored, observed = run.scored("simulation", simulated), run.scored("observed")
    validation, values = discriminant_of(run, scored)
    templates = Templates.filled(choose_edges(run, validation, values), values, validation)
    signal = selected_yield(run, simulated)
    background = background_yield(run, signal)
    if background is None and has_background(config):
        logger.warning(
            "the observed events contain generated ZZ background and the configuration has no `background:`; "
            "every method takes them for signal, and its title says so"
        )
    nu = signal
    if background is not None:
        nu = signal.plus(background.expected)
        console().print(f"{'':>9}  expected: {background.describe()}", highlight=False)
    full = with_nuisances(run, templates, signal, validation, values)
    bags = of_bags(run, scored)
    methods = Methods.of(
        run,
        simulated,
        observed,
        role="observed",
        templates=templates,
        with_nuisances=full,
        of_bags=bags,
        calibrations={},
    )
    rows = np.arange(len(observed))
    nuisances = methods.nuisances
    observation = observe(
        methods.with_titles(),
        rate_model(run, nu).observe(rows),
        rows,
        points=np.linspace(config.parameter.low, config.parameter.high, _PROFILE_POINTS),
        level=config.inference.level,
        n_expected=float(nu(config.parameter.reference)),
        joint=None if nuisances is None else {TEMPLATE_NUISANCES: replace(nuisances, with_rate=True)},
    )
    counts = methods.template.counts(rows)
    discriminant = config.templates.discriminant
    title = config.models[discriminant.model].title
    template_result = TemplateResult(
        config.parameter.name,
        f"log ratio at {config.parameter.name} = {discriminant.theta:g} ({title})",
        templates,
        tuple(int(count) for count in counts),
        methods.template.fit_with_pyhf(counts),
        full,
        None if nuisances is None else nuisances.fit_with_pyhf(counts),
        bags,
        goodness_of_fit(nuisances or methods.template, counts, stream(config.seed, "infer", "goodness")),
    )
    write_record(run.result("observed"), observation)
    write_record(run.result("templates"), template_result)
    write_json(run.result("workspace"), (nuisances or methods.template).workspace(counts))
    write_record(run.result("expected_events"), ExpectedEvents(nu, signal, background))
    write_record(run.result("limits"), _limits(run, methods, signal, counts))
    names = ("observed", "templates", "workspace", "expected_events", "limits")
    return [*written, *(run.result(name) for name in names)]


def _limits(run: Run, methods: Methods, signal: EFTPolynomial, counts: IntArray) -> TemplateLimits:
    """Return the CLs limits from shape and rate, if the configuration asks for them."""
    from milanalysis.statistics.templates.limits import TemplateLimits, cls_limit

    level = run.config.templates.limits
    if level is None:
        return TemplateLimits(None, None)
    model = methods.nuisances
    if model is None:
        plain = methods.template.templates
        scale = float(signal(0.0)) / plain.contents[:, 0].sum()
        model = replace(methods.template, templates=replace(plain, contents=plain.contents * scale))
    model = replace(model, with_rate=True)
    lower, upper = (cls_limit(model, counts, level, upper=upper) for upper in (False, True))
    return TemplateLimits(lower, upper)


def _score(run: Run, name: str, splits: Sequence[Split]) -> list[Path]:
    """Evaluate all models on a sample and keep the terms of the events in some splits, in table order.

    For an additive model the bags are a check: their log ratios and those of the events left over are the sum
    of the terms. For any other they are the answer, if they hold all events, and each event gets an equal
    share of that of its bag.

    Raises:
        AccountingError: if the events are not those of the table, if one is in no bag and not left over, or
            if terms and bags contradict each other.
        ProcessorError: if the processor returns something else.
    """
    from milanalysis.events.processing.processors import using_output_of
    from milanalysis.ratios.terms import concatenate_terms, load_terms

    models = run.config.models
    written = []
    directory = run.log_ratios(name, "any").parent
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".parts-", dir=directory) as scratch:
        output = run_bag_processor(run, name, Path(scratch), splits=splits)
        with using_output_of(run.config.processing.bag_likelihood, _BAG_OUTPUT):
            chunks = sorted(output["event_id"])
            event_id: IntArray = np.concatenate([np.asarray(output["event_id"][chunk]) for chunk in chunks])
            bags = {label: _bags_of(output, label, chunks, model) for label, model in models.items()}
            files = {
                label: [Path(output["terms"][label][chunk]) for chunk in chunks]
                for label, model in models.items()
                if model.is_additive
            }
        table = EventTable.read(run.table(name), with_features=False)
        if not np.array_equal(event_id, table.event_id[table.rows(*splits)]):
            msg = (
                f"sample {name!r}: the bag processor did not see the events of {run.table(name)}; process it "
                "again"
            )
            raise AccountingError(msg)
        for label, of_bags in bags.items():
            path = run.log_ratios(name, label)
            path.unlink(missing_ok=True)
            if label in files:
                terms = concatenate_terms([load_terms(one) for one in files[label]])
                if len(terms) != len(event_id):
                    msg = (
                        f"sample {name!r}, model {label!r}: {len(event_id)} events and log ratios of "
                        f"{len(terms)}"
                    )
                    raise AccountingError(msg)
                of_bags.require_agreement(
                    f"{run.config.processing.bag_likelihood}: sample {name!r}, model {label!r}", terms
                )
            elif run.config.samples[name].role == "observed" and of_bags.complete and len(event_id):
                terms = of_bags.shared()
            else:
                continue
            terms.save(path, event_id)
            written.append(path)
    return written


@dataclass(frozen=True, eq=False)
class _Bags:
    """The log ratios of the bags of a sample, chunk by chunk.

    Attributes:
        points: where they are known, shape ``(n_points, n_parameters)``.
        ratios: of each chunk, shape ``(n_bags, n_points)``.
        bag_size: events per bag.
        n_selected: events of each chunk, in bags or left over.
    """

    points: FloatArray
    ratios: tuple[FloatArray, ...]
    bag_size: int
    n_selected: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether no event is left over."""
        return sum(map(len, self.ratios)) * self.bag_size == sum(self.n_selected)

    def shared(self) -> GridTerms:
        """Return equal shares of the log ratio of its bag for each event."""
        every = np.concatenate(self.ratios)
        return GridTerms(self.points, np.repeat(every / self.bag_size, self.bag_size, axis=0))

    def require_agreement(self, what: str, terms: PolynomialTerms | GridTerms) -> None:
        """Refuse terms that do not add up to the log ratios of the bags.

        Raises:
            AccountingError: naming the point.
        """
        by_event = terms.per_event(self.points)
        start, total, size = 0, np.zeros(len(self.points)), np.ones(len(self.points))
        for ratios, n_selected in zip(self.ratios, self.n_selected, strict=True):
            in_bags = by_event[start : start + len(ratios) * self.bag_size]
            total += ratios.sum(axis=0) - in_bags.sum(axis=0)
            size += np.abs(in_bags).sum(axis=0)
            start += n_selected
        off = np.abs(total) > _SAME * size
        if off.any():
            msg = (
                f"{what}: the log ratios of bags and those of their events differ by {np.abs(total).max():g} "
                f"in their sum, first at {self.points[off][0].tolist()}; a bag processor evaluates both with "
                "the same model"
            )
            raise AccountingError(msg)


def _bags_of(output: Mapping[str, Any], label: str, chunks: Sequence[str], model: AnyModelConfig) -> _Bags:
    """Return the log ratios of the bags of a model, if they are what its counts say.

    Raises:
        AccountingError: if events were lost on the way into bags.
        TypeError, ValueError, LookupError: if it is something else.
    """
    counts = output["counts"][label]
    n_selected, n_bagged, n_left = (int(counts[one]) for one in ("n_selected", "n_bagged", "n_remainder"))
    if n_selected != n_bagged + n_left:
        msg = f"model {label!r}: events were lost on the way into bags: {counts}"
        raise AccountingError(msg)
    (points,) = {tuple(map(tuple, np.asarray(output["points"][label][chunk]).tolist())) for chunk in chunks}
    ratios = tuple(np.asarray(output["bags"][label][chunk], dtype=np.float64) for chunk in chunks)
    n_bags = sum(map(len, ratios))
    size = model.bag_size if not model.is_additive else n_bagged // n_bags if n_bags else 1
    if n_bags * size != n_bagged or any(one.shape != (len(one), len(points)) for one in ratios):
        msg = (
            f"'bags' of model {label!r} have shapes {', '.join(sorted({str(one.shape) for one in ratios}))} "
            f"for {n_bagged} events in bags of {size} and {len(points)} points"
        )
        raise ValueError(msg)
    if not all(np.isfinite(one).all() for one in ratios):
        msg = f"'bags' of model {label!r} hold numbers that are not finite"
        raise ValueError(msg)
    n_of_chunk = tuple(len(output["event_id"][chunk]) for chunk in chunks)
    return _Bags(np.array(points, dtype=np.float64), ratios, size, n_of_chunk)


STAGE = Stage(
    name="infer",
    needs=("truth", "simulate", "process", "exact", "train"),
    settings=lambda config: {
        "seed": config.seed,
        "parameter": to_plain(config.parameter),
        "templates": to_plain(config.templates),
        "inference": to_plain(config.inference),
        "luminosity": [config.luminosity_fb, config.luminosity_uncertainty],
        "background": background_of(config),
    },
    inputs=lambda run: [
        *event_files(run),
        *tables_of(run, "simulation"),
        *tables_of(run, "observed"),
        *background_table(run),
        *models_of(run),
        *exact_of(run, "observed"),
        *truth_of(run),
        run.config.processing.bag_likelihood,
    ],
    work=infer,
    summary=(
        "evaluates the networks in a coffea processor and fits the observed events; writes log_ratios/, "
        "results/"
    ),
)
