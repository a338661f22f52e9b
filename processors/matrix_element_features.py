"""The selection of features.py, and two features more: a closed-form estimate of the matrix element of production.

For parton-level events of the built-in process. A network that has them captures more of the information, above all of
that in rare events with hard quarks, which it cannot learn from the few of them it is shown.
"""

from __future__ import annotations

from typing import Any

import awkward as ak
from coffea import processor

from milanalysis.events.chunks import Cutflow, apply_cuts, chunk_table, write_part
from milanalysis.events.features import finite_momenta, hardest_first, missing_momentum, table1
from milanalysis.events.tables import EventTable
from milanalysis.simulation.visible import production_estimate, visible_momenta


class MatrixElementFeatureProcessor(processor.ProcessorABC):
    """Selects events with two charged leptons and two quarks, and describes them by 38 features."""

    def event_table(self, events: Any) -> tuple[EventTable, Cutflow]:
        """Select the events of a chunk and compute their features."""
        final = events.Particle[events.Particle.Status == 1]
        kind = abs(final.PID)
        leptons = hardest_first(final[(kind == 11) | (kind == 13)])
        quarks = hardest_first(final[(kind >= 1) & (kind <= 6)])
        visible = final[(kind != 12) & (kind != 14) & (kind != 16)]
        keep, cutflow = apply_cuts(
            events,
            {
                "finite momenta": finite_momenta(visible),
                "two charged leptons": ak.num(leptons) == 2,
                "two quarks": ak.num(quarks) == 2,
            },
        )
        features = table1(leptons[keep], quarks[keep], missing_momentum(visible)[keep])
        momenta = visible_momenta(chunk_table(events, keep, features))
        linear, quadratic = production_estimate(momenta).T
        columns = {**features, "production_linear": linear, "production_quadratic": quadratic}
        return chunk_table(events, keep, columns), cutflow

    def process(self, events: Any) -> dict[str, Any]:
        """Write the chunk's table to parquet; return its name and the cutflow."""
        table, cutflow = self.event_table(events)
        return {"cutflow": cutflow, "parts": write_part(table, events)}

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the sum over chunks as it is."""
        return accumulator
