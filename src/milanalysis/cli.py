"""The command line: ``milanalysis run CONFIG`` and one command for each stage.

A command imports what it needs when it runs, so that ``--help`` answers at once. Errors that milanalysis
raises on purpose become one message and exit code 2; ``--debug`` shows where they came from.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from milanalysis import __version__
from milanalysis.errors import InputFileError, MilAnalysisError, OutputError, cannot_write
from milanalysis.files.records import read_record
from milanalysis.terminal import console, prepare_streams, release_streams, result_console

if TYPE_CHECKING:
    from rich.table import Table

    from milanalysis.pipeline.run_files import Run
    from milanalysis.statistics.coverage import CoverageReport

__all__ = ["main"]

_BAD_INPUT = 2
_INTERRUPTED = 130
_ENDED_BY_SIGNAL = 128


class _EndedBySignalError(KeyboardInterrupt):
    """The batch system or the terminal ends the run; it is treated as if somebody had pressed Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _FriendlyGroup(click.Group):
    """A group of commands that turns errors raised on purpose, and those of the system, into one message."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        prepare_streams()
        try:
            return super().main(*arguments, **options)
        except OSError as error:  # in what is printed before a command begins, such as its help
            if options.get("standalone_mode") is False:
                raise
            _print_error(_message(error))
            release_streams()
            sys.exit(_BAD_INPUT)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _signals_interrupt():
                return super().invoke(ctx)
        except BrokenPipeError:  # nobody reads what is printed
            release_streams()
            ctx.exit(0)
        except (MilAnalysisError, OSError, MemoryError) as error:
            if ctx.params.get("debug"):
                raise
            _print_error(_message(error))
            ctx.exit(_BAD_INPUT)
        except KeyboardInterrupt as error:
            with suppress(OSError):
                click.echo("interrupted; the same command takes up the work where it stopped", err=True)
            release_streams()
            ctx.exit(
                _ENDED_BY_SIGNAL + error.number if isinstance(error, _EndedBySignalError) else _INTERRUPTED
            )


def _message(error: MilAnalysisError | OSError | MemoryError) -> str:
    """Return what is said about an error that ends a command."""
    if isinstance(error, MilAnalysisError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            f"there is not enough memory ({str(error) or 'no more is available'}); use fewer workers, a "
            "smaller processing.chunk_size, or a machine with more; what is finished is kept, and the same "
            "command goes on from there"
        )
    if error.filename is None or cannot_write(error):
        return str(OutputError.at(error.filename or "the output", error))
    return (
        f"{error.filename} cannot be used ({error.strerror}); check that it is there and that you may read "
        "and write it; what is finished is kept, and the same command goes on from there"
    )


def _print_error(message: str) -> None:
    """Print a message on standard error, in one piece."""
    with suppress(OSError):
        console().print("[bold red]error:[/] ", end="")
        console().print(message, markup=False, soft_wrap=True)
    release_streams()


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let the first signal, or a closed terminal, interrupt the work: workers end and files stay complete."""

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _EndedBySignalError(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGTERM, signal.SIGHUP)):
            if signal.getsignal(number) == signal.SIG_DFL:  # not with nohup
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_HELP = """From ROOT files of collider events to a confidence interval on an EFT coefficient.

CONFIG is one YAML file (see analysis_configs/). All results go to one run directory, and every stage can be
run alone, again, or continued after it was interrupted:

\b
  simulate -> process -> exact -> train -> infer -> calibrate -> coverage -> plot
"""


@click.group(
    cls=_FriendlyGroup,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="milanalysis")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("-v", "--verbose", is_flag=True, help="Log what is being done.")
def main(debug: bool, verbose: bool) -> None:
    """Set up logging; commands do the rest."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


_CONFIG = click.argument("config", type=click.Path(path_type=Path))
_OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Run directory; the default is runs/<name of the analysis>.",
)


_SCHEDULER = click.option(
    "--scheduler",
    metavar="ADDRESS",
    default=None,
    help="Run coffea on the dask cluster of this scheduler (tcp://host:port), whatever CONFIG says.",
)


@main.command()
@_CONFIG
@_OUTPUT
@_SCHEDULER
def run(config: Path, output: Path | None, scheduler: str | None) -> None:
    """Run all stages of CONFIG that are not up to date, and print the comparison of methods."""
    from milanalysis.pipeline.scheduling import execute, names_of_run, planned_run

    analysis = planned_run(config, output, scheduler)
    execute(analysis, names_of_run(analysis.config))
    _print_comparison(analysis)


@main.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Directory of the ROOT files; the default is that of each text file.",
)
def convert(files: tuple[Path, ...], output: Path | None) -> None:
    """Convert Les Houches text (.lhe, .lhe.gz) to ROOT.

    Reads FILE...; writes <name>.lhef.root, and beside it <name>.lhef.json with the names of the weights and
    the cross-section, which ROOT trees of this kind cannot hold. No tree takes the place of one of another
    text.
    """
    from milanalysis.events.lhe.conversion import conversion_targets, convert_lhe
    from milanalysis.terminal import progress_bar

    for path, target in zip(files, conversion_targets(files, output), strict=True):
        try:
            with progress_bar(f"converting {path.name}", None) as advance:
                summary = convert_lhe(path, target, advance)
        except InputFileError as error:
            if len(files) == 1 or str(path) in str(error):
                raise
            msg = f"{path}: {error}"
            raise InputFileError(msg) from error
        names = summary["weight_names"]
        console().print(
            f"{target}: {summary['n_events']} events, {len(names)} "
            f"weights{': ' if names else ''}{', '.join(names[:12])}{', ...' if len(names) > 12 else ''}; "
            f"normalisation: {summary['normalisation'] or 'not recognised'}",
            markup=False,
            soft_wrap=True,
        )


def _stage_command(name: str) -> None:
    """Add the command of one stage."""

    @_CONFIG
    @_OUTPUT
    def command(config: Path, output: Path | None, scheduler: str | None = None) -> None:
        from milanalysis.pipeline.scheduling import execute, planned_run

        analysis = planned_run(config, output, scheduler)
        execute(analysis, [name])
        if name == "coverage":
            _print_comparison(analysis)

    if name in _WITH_COFFEA:
        command = _SCHEDULER(command)
    main.command(name, help=_STAGE_HELP[name])(command)


@main.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--theta", type=float, multiple=True, help="True value; can be given several times.")
@click.option("--level", type=float, multiple=True, help="Confidence level; can be given several times.")
@click.option("--experiments", type=int, help="Pseudo-experiments at each true value.")
@click.option("--number", type=click.Choice(["fixed", "poisson"]), help="How many events each of them has.")
def coverage_report(
    run: Path, theta: tuple[float, ...], level: tuple[float, ...], experiments: int | None, number: str | None
) -> None:
    """Report the coverage of all methods of a run directory RUN.

    Without options this prints the report that `coverage` has made. With options the measurement is repeated
    with these settings and the others of the run. With several true values there are final intervals after
    Neyman and after Feldman and Cousins, too. With a background in the configuration there is a second
    report, of pseudo-experiments that contain it.

    Reads results/, log_ratios/ and tables/; with options it writes results/coverage_report.json and
    background_report.json.
    """
    from milanalysis.files.run_directory import RunDirectory
    from milanalysis.pipeline.locking import alone_in
    from milanalysis.pipeline.repetition import report_run

    RunDirectory(run).require_run()
    settings = {"theta": theta, "levels": level, "pseudo_experiments": experiments, "number": number}
    changes = {key: value for key, value in settings.items() if value not in (None, ())}
    with alone_in(run.resolve()) if changes else nullcontext():
        reports = report_run(run.resolve(), changes)
    for report in reports:
        _print_report(report)


@main.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def scaling(run: Path) -> None:
    """Say how errors and information of the models of a run directory RUN grow with the size of bags.

    The variance of the error on the log ratio is measured on bags of test events of many sizes. Where a task
    has been trained at three or more bag sizes, their information is fitted, and it is said whether an
    asymptote can be claimed. The second Bartlett identity is tested event by event.

    Reads results/, log_ratios/ and tables/; writes results/scaling.json.
    """
    from milanalysis.files.run_directory import RunDirectory
    from milanalysis.pipeline.bag_size_scaling import scaling_of_run
    from milanalysis.pipeline.locking import alone_in
    from milanalysis.reporting.coverage_tables import bartlett_table, scaling_table

    RunDirectory(run).require_run()
    with alone_in(run.resolve()):
        reports, tests = scaling_of_run(run.resolve())
    _print_table(bartlett_table(tests))
    _print_table(scaling_table(reports))
    for name, report in reports.items():
        _print_line(f"{name}: {report.verdict}")


def _print_report(report: CoverageReport) -> None:
    """Print the coverage report, and the final intervals if there are any."""
    from milanalysis.reporting.coverage_tables import coverage_table, interval_table, reading_remark

    _print_table(coverage_table(report))
    if report.intervals:
        _print_table(interval_table(report))
    remark = reading_remark(report)
    if remark:
        _print_line(remark)


@main.command()
@_CONFIG
@_OUTPUT
def truth(config: Path, output: Path | None) -> None:
    """Compute the Fisher information available, which no method can exceed.

    For the cuts, beams and parton densities under `generator`: Fisher information of all that is in the
    events and of what is visible, expected widths of intervals, and the best separation of single events. A
    part of `run` where the simulation is generated here and `truth.in_run` is not never.

    Reads nothing; writes results/truth.json.
    """
    from milanalysis.pipeline.scheduling import execute, planned_run
    from milanalysis.pipeline.stages import TRUTH
    from milanalysis.reporting.tables import information_table
    from milanalysis.simulation.exact.information import ReferenceInformation

    analysis = planned_run(config, output)
    execute(analysis, [TRUTH.name])
    information = read_record(analysis.result("truth"), ReferenceInformation)
    n_events = analysis.config.coverage.events
    if n_events is not None:
        information = replace(information, n_events=n_events)
    _print_table(information_table(information))


@main.command()
@_CONFIG
@_OUTPUT
def tune(config: Path, output: Path | None) -> None:
    """Search settings of a model, such as learning rate and layers, in the ranges under `tune` in CONFIG.

    Trains the model many times and compares it on the same validation events; bad trials are given up early.
    The same command goes on with an interrupted search, or adds trials if CONFIG asks for more. Not a part of
    `run`.

    Reads tables/*/events.parquet; writes tuning/, results/tuning.json, figures/tuning.png, and
    results/tuned.yaml with the best settings, to be pasted into CONFIG.
    """
    from milanalysis.learning.training.tuning import Tuning
    from milanalysis.pipeline.scheduling import execute, planned_run
    from milanalysis.pipeline.stages import TUNE
    from milanalysis.reporting.tuning import tuning_table

    analysis = planned_run(config, output)
    execute(analysis, [TUNE.name])
    _print_table(tuning_table(read_record(analysis.result("tuning"), Tuning)))
    _print_line(f"the best settings are in {analysis.directory / 'results' / 'tuned.yaml'}")


@main.command()
@_CONFIG
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Directory of the cards; the default is runs/<name of the analysis>/madgraph.",
)
@click.option(
    "--events", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Per value of cHW."
)
@click.option("--cards-only", is_flag=True, help="Do not run MadGraph even if it is there.")
def madgraph(config: Path, output: Path | None, events: int, cards_only: bool) -> None:
    """Write the paper's MadGraph cards, and run MadGraph if it is on the PATH.

    Process, run, parameter and reweighting cards for the signal at 39 values of cHW and for the ZZ
    background, with the beam energy and the cuts under `generator`. Reads nothing; writes signal/ and
    background/. A directory that holds events is refused, since MadGraph would delete them.
    """
    from milanalysis.pipeline.scheduling import planned_run
    from milanalysis.simulation.madgraph import PROGRAM, run_madgraph, write_cards

    analysis = planned_run(config)
    directory = (output or analysis.directory / "madgraph").resolve()
    settings = analysis.config
    cards = write_cards(directory, settings.generator, coefficient=settings.parameter.name, n_events=events)
    _print_line(f"{len(cards)} cards are in {directory}")
    if cards_only:
        return
    if run_madgraph(directory):
        _print_line(
            f"events of all values are there: {directory}/*/process/Events/<run>/unweighted_events.lhe.gz"
        )
        return
    _print_line(
        f"{PROGRAM} is not on the PATH, so no events were made. Install MadGraph5_aMC@NLO 3.6 and the model "
        "SMEFTsim 3, put its bin directory on the PATH and give the same command again; or, in each of "
        f"signal/ and background/, run `{PROGRAM} proc_card.dat` and then `{PROGRAM} launch.dat`. It exits "
        "with 0 on errors too: only process/Events/<run>/unweighted_events.lhe.gz says that a value was "
        "generated."
    )


def _print_table(table: Table) -> None:
    """Print a table of results so that it fits into the terminal."""
    from milanalysis.reporting.narrow_tables import fitted

    out = result_console()
    out.print(fitted(table, out))
    out.print()


def _print_line(text: str) -> None:
    """Print a line of results; terminals fold it."""
    result_console().print(text, soft_wrap=True, markup=False)


def _print_comparison(analysis: Run) -> None:
    """Print the table of results."""
    from milanalysis.files.records import read_record
    from milanalysis.pipeline.repetition import read_observation
    from milanalysis.reporting.coverage_tables import (
        calibration_table,
        coverage_table,
        limits_table,
        reading_remark,
    )
    from milanalysis.reporting.tables import (
        comparison_tables,
        goodness_remark,
        information_remark,
        observation_table,
    )
    from milanalysis.statistics.coverage import CoverageReport
    from milanalysis.statistics.information.comparison import Comparison
    from milanalysis.statistics.observation import CalibrationResult
    from milanalysis.statistics.templates.limits import TemplateLimits
    from milanalysis.statistics.templates.result import TemplateResult

    _print_table(observation_table(read_observation(analysis)))
    templates = read_record(analysis.result("templates"), TemplateResult)
    if remark := goodness_remark(templates.goodness):
        _print_line(remark)
    limits = read_record(analysis.result("limits"), TemplateLimits)
    if limits.upper is not None:
        _print_table(limits_table(limits, analysis.config.parameter.name))
    calibrated = read_record(analysis.result("calibration"), CalibrationResult)
    if calibrated.calibrations:
        _print_table(calibration_table(calibrated))
    comparison = read_record(analysis.result("comparison"), Comparison)
    for table in comparison_tables(comparison):
        _print_table(table)
    _print_line(information_remark(comparison))
    remark = reading_remark(read_record(analysis.result("coverage"), CoverageReport))
    if remark:
        _print_line(remark)
    if analysis.config.background is not None:
        _print_table(coverage_table(read_record(analysis.result("background"), CoverageReport)))


_STAGE_HELP = {
    "simulate": "Generate the samples of CONFIG.\n\nReads nothing; writes events/<sample>.root.",
    "process": (
        "Run the feature processor with coffea.\n\n"
        "Reads events/*.root or the files of CONFIG; writes tables/<sample>/events.parquet and cutflow.json."
    ),
    "exact": (
        "Integrate the exact likelihood ratio of what is visible, for parton-level events of the built-in "
        "process.\n\n"
        "Reads tables/*/events.parquet; writes exact/<sample>.npz and results/exact.json, which says why if "
        "it is not known."
    ),
    "train": "Train the networks.\n\nReads tables/*/events.parquet; writes models/<label>/.",
    "infer": (
        "Evaluate the networks inside a coffea processor and fit the observed events.\n\n"
        "Reads models/ and events/; writes log_ratios/ and results/observed.json."
    ),
    "calibrate": (
        "Learn the calibrations of CONFIG on validation events.\n\n"
        "Reads log_ratios/, tables/ and results/observed.json; writes results/calibration.json."
    ),
    "coverage": (
        "Repeat the measurement on pseudo-experiments.\n\n"
        "Reads log_ratios/ and tables/; writes results/pseudo_experiments.json, comparison.json and "
        "coverage.json."
    ),
    "plot": "Draw the figures.\n\nReads results/ and tables/; writes figures/*.png and *.pdf.",
}
_WITH_COFFEA = ("process", "infer")
for _name in _STAGE_HELP:
    _stage_command(_name)


if __name__ == "__main__":
    main()
