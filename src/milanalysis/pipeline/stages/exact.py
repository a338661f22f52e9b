"""The stage that computes the exact likelihood ratio of what is visible."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from milanalysis.errors import ProcessMismatchError
from milanalysis.events.tables import EventTable, concatenate
from milanalysis.files.records import to_plain, write_record
from milanalysis.parameters import FloatArray
from milanalysis.pipeline.run_files import ExactRatios, Run
from milanalysis.pipeline.stages.stage import (
    Stage,
    tables_of,
)
from milanalysis.terminal import progress_bar

__all__ = ["STAGE", "exact"]

logger = logging.getLogger(__name__)


def exact(run: Run) -> Sequence[Path]:
    """Compute the exact likelihood ratio of what is visible for all events, if it is known for them.

    Raises:
        ProcessMismatchError: if it is required and not known, saying why.
    """
    from milanalysis.ratios.exact import mean_polynomial
    from milanalysis.ratios.terms import PolynomialTerms

    config = run.config
    reason = ""
    if config.exact.visible == "never":
        reason = "the configuration does without it (exact.visible: never)"
    else:
        try:
            found = _visible_polynomials(run)
        except ProcessMismatchError as error:
            if config.exact.visible == "required":
                raise
            reason = str(error)
            logger.warning("there is no row for the exact visible ratio: %s", reason)
    written = [run.result("exact")]
    rate = None
    if not reason:
        run.require_events("simulation")
        names = config.samples_with_role("simulation")
        simulated = concatenate([found[name][0] for name in names])
        every = np.concatenate([found[name][1] for name in names])
        rate = mean_polynomial(simulated, np.arange(len(simulated)), every)
        for name, (table, polynomials) in found.items():
            PolynomialTerms(polynomials[None], rate[None]).save(run.exact_file(name), table.event_id)
            written.append(run.exact_file(name))
    write_record(
        run.result("exact"),
        ExactRatios(
            not reason,
            reason,
            config.exact.accuracy,
            config.generator.u_beam,
            None if rate is None else tuple(rate.tolist()),
        ),
    )
    return written


def _visible_polynomials(run: Run) -> dict[str, tuple[EventTable, FloatArray]]:
    """Return each sample's events without features, and their exact visible ratios as polynomials.

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
    found = {}
    with progress_bar("exact visible ratio", len(names)) as advance:
        for name in names:
            try:
                table = EventTable.read(run.table(name))
                polynomials = ratio.table_polynomials(
                    table, u_beam=1 if generator.u_beam == "first" else None, n_jobs=run.workers
                )
                bare = replace(table, feature_names=(), features=table.features[:, :0])
                found[name] = bare, polynomials
            except ProcessMismatchError as error:
                msg = f"sample {name!r}: {error}"
                raise ProcessMismatchError(msg) from error
            advance(1, name)
    return found


STAGE = Stage(
    name="exact",
    needs=("process",),
    settings=lambda config: {
        "exact": to_plain(config.exact),
        "beam_energy": config.generator.beam_energy,
        "u_beam": config.generator.u_beam,
        "pdf": to_plain(config.generator.pdf),
    },
    inputs=lambda run: [*tables_of(run, "simulation"), *tables_of(run, "observed")],
    work=exact,
    summary="integrates the exact ratio of what is visible; writes exact/<sample>.npz",
)
