"""What the stages do: each function reads files of a run, writes others, and returns those it has written."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanalysis.config import (
    FileSampleConfig,
    GenerateBackgroundConfig,
    GenerateSampleConfig,
)
from milanalysis.errors import AccountingError, ProcessMismatchError
from milanalysis.events.tables import EventTable, Split
from milanalysis.files.provenance import write_json, write_result
from milanalysis.parameters import EFTPolynomial, FloatArray, IntArray
from milanalysis.pipeline.inputs import (
    bag_points,
    check_given,
    open_samples,
    run_bag_processor,
    selected_yield,
)
from milanalysis.pipeline.run_files import SCORED, Run
from milanalysis.progress import progress_bar
from milanalysis.randomness import stream
from milanalysis.simulation.generator import EventSource
from milanalysis.terminal import console

if TYPE_CHECKING:
    from milanalysis.pipeline.methods import Methods

__all__ = [
    "calibrate",
    "coverage",
    "exact",
    "infer",
    "plot",
    "process",
    "simulate",
    "truth",
]

logger = logging.getLogger(__name__)

_BAG_OUTPUT = (
    "a bag processor returns 'event_id', and for each model 'bags', 'counts' and, where its ratio is a sum over events, "
    "'scores', as processors/bag_likelihood.py does"
)
_PROFILE_POINTS = 201
_EVENTS_OF_TRUTH = 1000  # information is proportional to their number
_AUC_STEPS = (0.1, 0.2)  # from the reference, where the best separation of single events is given


def simulate(run: Run) -> Sequence[Path]:
    """Generate the samples that the configuration does not take from files."""
    from milanalysis.simulation.generator import generate_sample
    from milanalysis.simulation.lhe import SampleHeader, write_lhef_root

    written = []
    check_given(run)
    for name, sample in run.config.samples.items():
        if isinstance(sample, FileSampleConfig):
            continue
        seed = run.config.seed
        generator = _generator(run, sample, stream(seed, "simulate", name, "adaptation"))
        header = SampleHeader.of_sample(
            generator, weight_points=sample.weight_points, n_events=sample.events, seed=seed
        )
        with progress_bar(f"generating {name}", sample.events) as advance:
            blocks = generate_sample(
                generator,
                name=name,
                n_events=sample.events,
                seed=seed,
                workers=run.workers,
                progress=advance,
            )
            (path,) = run.event_files(name)
            write_lhef_root(path, blocks, header)
        written += [path, path.with_suffix(".json")]
    return written


def _generator(
    run: Run, sample: GenerateSampleConfig | GenerateBackgroundConfig, rng: np.random.Generator
) -> EventSource:
    """Return the generator of a sample, adapted to it."""
    from milanalysis.simulation.background.generator import BackgroundGenerator
    from milanalysis.simulation.generator import Generator

    if isinstance(sample, GenerateBackgroundConfig):
        return BackgroundGenerator.adapted(run.config.generator, rng)
    return Generator.adapted(run.config.generator, sample.theta, rng)


def process(run: Run) -> Sequence[Path]:
    """Turn the events of every sample into a table of features.

    Raises:
        InputFileError, EventWeightError: as `milanalysis.events.files.admission.admit`.
        DataLeakError: if different files have the same events.
    """
    from milanalysis.events.files.admission import admit
    from milanalysis.events.files.identity import require_different_events
    from milanalysis.events.processing.processors import make_processor
    from milanalysis.events.processing.tables_of_samples import make_tables
    from milanalysis.reporting.cutflow import cutflow_table

    processing = run.config.processing
    features = make_processor(processing.features)
    written = []
    samples = open_samples(run)
    admit(list(samples.values()))
    summaries = {}
    for name, sample in samples.items():
        directory = run.table(name).parent
        summaries[name] = make_tables(
            features,
            sample,
            directory,
            executor=processing.executor,
            chunk_size=processing.chunk_size,
            multiple=processing.chunk_multiple,
            on_bad_file=processing.on_bad_file,
            theta_range=(run.config.parameter.low, run.config.parameter.high),
            stamp=run.stamp(f"process-{name}"),
        )
        written += [run.table(name), directory / "cutflow.json"]
    console().print(cutflow_table(summaries, {name: one.role for name, one in run.config.samples.items()}))
    for warning in require_different_events(
        list(samples.values()), {name: run.table(name) for name in samples}
    ):
        logger.warning("%s", warning)
    return written


def exact(run: Run) -> Sequence[Path]:
    """Compute the exact likelihood ratio of what is visible for all events, if it is known for them.

    Raises:
        ProcessMismatchError: if it is required and not known, saying why.
    """
    from milanalysis.ratios.exact import mean_polynomial
    from milanalysis.ratios.terms import PolynomialScores

    config = run.config
    reason = ""
    if config.exact.visible == "never":
        reason = "the configuration does without it (exact.visible: never)"
    else:
        try:
            polynomials = _visible_polynomials(run)
        except ProcessMismatchError as error:
            if config.exact.visible == "required":
                raise
            reason = str(error)
            logger.warning("there is no row for the exact visible ratio: %s", reason)
    written = [run.result("exact")]
    rate = None
    if not reason:
        simulated = run.load_table("simulation", with_features=False)
        samples = [polynomials[name] for name in config.samples_with_role("simulation")]
        rate = mean_polynomial(simulated, np.arange(len(simulated)), np.concatenate(samples))
        for name, one in polynomials.items():
            PolynomialScores(one[None], rate[None]).save(run.exact_file(name))
            written.append(run.exact_file(name))
    write_result(
        run.result("exact"),
        {
            "available": not reason,
            "reason": reason,
            "accuracy": config.exact.accuracy,
            "u_beam": config.generator.u_beam,
            "rate": None if rate is None else rate.tolist(),
        },
    )
    return written


def _visible_polynomials(run: Run) -> dict[str, FloatArray]:
    """Return the exact visible ratio of all events as polynomials, for each sample.

    Raises:
        ProcessMismatchError: if a sample is of another process or level, naming it.
    """
    from milanalysis.simulation.densities import make_densities
    from milanalysis.simulation.exact.visible_ratio import PRESETS, VisibleRatio

    generator = run.config.generator
    ratio = VisibleRatio(
        generator.beam_energy, make_densities(generator.pdf), PRESETS[run.config.exact.accuracy]
    )
    names = [name for role in ("observed", "simulation") for name in run.config.samples_with_role(role)]
    polynomials = {}
    with progress_bar("exact visible ratio", len(names)) as advance:
        for name in names:
            try:
                polynomials[name] = ratio.table_polynomials(
                    EventTable.read(run.table(name)),
                    u_beam=1 if generator.u_beam == "first" else None,
                    n_jobs=run.workers,
                )
            except ProcessMismatchError as error:
                msg = f"sample {name!r}: {error}"
                raise ProcessMismatchError(msg) from error
            advance(1, name)
    return polynomials


def infer(run: Run) -> Sequence[Path]:
    """Evaluate the models inside the bag processor, and fit every method to the observed events."""
    from milanalysis.learning.models.stored import Manifest
    from milanalysis.pipeline.methods import TEMPLATE_NUISANCES, Methods, has_background
    from milanalysis.pipeline.template_analysis import (
        background_yield,
        choose_edges,
        discriminant_of,
        of_bags,
        rate_model,
        with_nuisances,
    )
    from milanalysis.statistics.observation import observe
    from milanalysis.statistics.templates.goodness import goodness_of_fit
    from milanalysis.statistics.templates.result import TemplateResult
    from milanalysis.statistics.templates.templates import Templates

    config = run.config
    # the networks see the features of simulated events in the processor
    names, simulated = run.feature_names("simulation"), run.load_table("simulation", with_features=False)
    observed = run.load_table("observed")
    for label, model in config.models.items():
        Manifest.read(run.model(label)).require(model, config.reference_point(), names)

    written = []
    backgrounds = () if config.background is None else (config.background.sample,)
    for name in (*config.samples_with_role("simulation"), *backgrounds):
        written += _score(run, name, SCORED)
    for name in config.samples_with_role("observed"):
        written += _score(run, name, tuple(Split))

    validation, values = discriminant_of(run, simulated)
    templates = Templates.from_hist(_fill_templates(run, choose_edges(run, validation, values)))
    signal = selected_yield(run)
    background = background_yield(run, signal)
    if background is None and has_background(config):
        logger.warning(
            "the observed events contain generated ZZ background and the configuration has no `background:`; every method takes "
            "them for signal, and its title says so"
        )
    nu = signal
    if background is not None:
        nu = signal.plus(background.expected)
        console().print(f"{'':>9}  expected: {background.describe()}", highlight=False)
    full = with_nuisances(run, templates, signal, validation, values)
    bags = of_bags(run, simulated)
    methods = Methods.of(
        run,
        simulated,
        observed,
        role="observed",
        visible=run.load_exact("observed"),
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
    write_result(run.result("observed"), observation.to_dict())
    write_result(run.result("templates"), template_result.to_dict())
    write_result(run.result("workspace"), (nuisances or methods.template).workspace(counts))
    write_result(
        run.result("expected_events"),
        {
            **nu.to_dict(),
            "signal": signal.to_dict(),
            "background": None if background is None else asdict(background),
        },
    )
    write_result(run.result("limits"), _limits(run, methods, signal, counts))
    names = ("observed", "templates", "workspace", "expected_events", "limits")
    return [*written, *(run.result(name) for name in names)]


def _limits(run: Run, methods: Methods, signal: EFTPolynomial, counts: IntArray) -> dict[str, Any]:
    """Return the CLs limits from shape and rate that the configuration asks for; empty if it does not."""
    from milanalysis.statistics.templates.limits import cls_limit

    level = run.config.templates.limits
    if level is None:
        return {}
    model = methods.nuisances
    if model is None:
        plain = methods.template.templates
        scale = float(signal(0.0)) / plain.contents[:, 0].sum()
        model = replace(methods.template, templates=replace(plain, contents=plain.contents * scale))
    model = replace(model, with_rate=True)
    sides = {"lower": False, "upper": True}
    return {name: asdict(cls_limit(model, counts, level, upper=upper)) for name, upper in sides.items()}


def calibrate(run: Run) -> Sequence[Path]:
    """Learn all calibrations; see `milanalysis.pipeline.calibration`."""
    from milanalysis.pipeline import calibration as calibrating

    return calibrating.calibrate(run)


def coverage(run: Run) -> Sequence[Path]:
    """Repeat the measurement on pseudo-experiments; see `milanalysis.pipeline.repetition`."""
    from milanalysis.pipeline import repetition as judging

    return judging.coverage(run)


def plot(run: Run) -> Sequence[Path]:
    """Draw all figures."""
    from milanalysis.reporting.gallery import FIGURES, draw

    with progress_bar("drawing", len(FIGURES)) as advance:
        written = []
        for name in FIGURES:
            written += draw(run.directory, name)
            advance(1, name)
    return written


def truth(run: Run) -> Sequence[Path]:
    """Compute the information that is there to be had."""
    from milanalysis.simulation.exact.information import reference_information

    config, reference = run.config, run.config.parameter.reference
    with progress_bar("reference information", config.truth.points) as advance:
        information = reference_information(
            config.generator,
            parameter=config.parameter.name,
            theta=reference,
            auc_at=config.truth.auc_at or tuple(round(reference + step, 12) for step in _AUC_STEPS),
            n_events=_EVENTS_OF_TRUTH,
            n_points=config.truth.points,
            seed=config.seed,
            workers=run.workers,
            progress=advance,
        )
    write_result(run.result("truth"), information.to_dict())
    return [run.result("truth")]


def _score(run: Run, name: str, splits: Sequence[Split]) -> list[Path]:
    """Evaluate all models on a sample and keep the score of every event in some splits, in the order of its table.

    Models whose ratio is not a sum over events have no scores; only their bags are kept.

    Raises:
        AccountingError: if the scored events are not those of the table, or an event is in no bag and not left over.
    """
    from milanalysis.events.processing.processors import using_output_of
    from milanalysis.ratios.terms import concatenate_scores, load_scores

    models = {label: run.model(label) for label in run.config.models}
    additive = [label for label, model in run.config.models.items() if model.is_additive]
    directory = run.scores(name)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory(prefix=".parts-", dir=directory) as scratch:
        output = run_bag_processor(
            run, name, Path(scratch), models=models, theta=bag_points(run), splits=splits
        )
        with using_output_of(run.config.processing.bag_likelihood, _BAG_OUTPUT):
            chunks = sorted(output["event_id"])
            scored: IntArray = np.concatenate([np.asarray(output["event_id"][chunk]) for chunk in chunks])
            ratios = {label: _bags_of(output, label, chunks, run) for label in models}
            files = {label: [Path(output["scores"][label][chunk]) for chunk in chunks] for label in additive}
        table = EventTable.read(run.table(name), with_features=False)
        if not np.array_equal(scored, table.event_id[table.rows(*splits)]):
            msg = f"sample {name!r}: the bag processor did not see the events of {run.table(name)}; process it again"
            raise AccountingError(msg)
        for label in models:
            if label in additive:
                joined = concatenate_scores([load_scores(path) for path in files[label]])
                if len(joined) != len(scored):
                    msg = f"sample {name!r}, model {label!r}: {len(scored)} events were scored and {len(joined)} scores written"
                    raise AccountingError(msg)
                joined.save(run.score_file(name, label))
                written.append(run.score_file(name, label))
            bags = directory / f"{label}.bags.json"
            write_json(
                bags,
                {
                    **output["counts"][label],
                    "theta": bag_points(run).tolist(),
                    "log_ratio_sum": ratios[label].sum(axis=0).tolist(),
                },
            )
            written.append(bags)
    return written


def _bags_of(output: Mapping[str, Any], label: str, chunks: Sequence[str], run: Run) -> FloatArray:
    """Return the log ratios of the bags of a model, shape ``(n_bags, n_points)``, if they are what its counts say.

    Raises:
        AccountingError: if events were lost on the way into bags.
        TypeError, ValueError, LookupError: if it is something else.
    """
    counts = output["counts"][label]
    n_selected, n_bagged, n_left = (int(counts[one]) for one in ("n_selected", "n_bagged", "n_remainder"))
    if n_selected != n_bagged + n_left:
        msg = f"model {label!r}: events were lost on the way into bags: {counts}"
        raise AccountingError(msg)
    ratios = np.concatenate([np.asarray(output["bags"][label][chunk], dtype=np.float64) for chunk in chunks])
    n_points, model = len(bag_points(run)), run.config.models[label]
    expected = (n_bagged // model.bag_size, n_points) if not model.is_additive else (len(ratios), n_points)
    if ratios.shape != expected or (len(ratios) and n_bagged % len(ratios)) or (n_bagged and not len(ratios)):
        msg = f"'bags' of model {label!r} have shape {ratios.shape} for {n_bagged} events in bags and {n_points} points"
        raise ValueError(msg)
    if not np.isfinite(ratios).all():
        msg = f"'bags' of model {label!r} hold numbers that are not finite"
        raise ValueError(msg)
    return ratios


def _fill_templates(run: Run, edges: FloatArray) -> Any:
    """Fill the templates from the validation events of all simulated samples."""
    from milanalysis.events.processing.processors import using_output_of

    discriminant = run.config.templates.discriminant
    model = {discriminant.model: run.model(discriminant.model)}
    outputs = [
        run_bag_processor(
            run,
            name,
            None,
            models=model,
            theta=bag_points(run),
            splits=(),
            discriminant=discriminant,
            edges=edges,
        )
        for name in run.config.samples_with_role("simulation")
    ]
    # Floating-point sums depend on their order: that of the events, not that in which chunks were finished.
    with using_output_of(run.config.processing.bag_likelihood, _BAG_OUTPUT):
        filled = [output["templates"][chunk] for output in outputs for chunk in sorted(output["templates"])]
        total = sum(filled[1:], start=filled[0])
        total.values().sum(axis=1)
        return total
