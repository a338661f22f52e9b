"""The selection of features.py with two more features: a closed-form estimate of the matrix element.

For parton-level events of the built-in process. A network that has them captures more of the information,
above all of that in rare events with hard quarks, which it cannot learn from the few of them it is shown.
"""

from __future__ import annotations

from typing import Any

import awkward as ak
from coffea import processor

from milanalysis.processing import (
    Cutflow,
    EventTable,
    apply_cuts,
    chunk_table,
    hardest_first,
    production_estimate,
    read_objects,
    table1,
    visible_momenta,
    write_part,
)


class MatrixElementFeatureProcessor(processor.ProcessorABC):
    """Selects events with two charged leptons and two quarks, and describes them by 38 features."""

    def event_table(self, events: Any) -> tuple[EventTable, Cutflow]:
        """Select the events of a chunk and compute their features."""
        found = read_objects(events)
        keep, cutflow = apply_cuts(
            events,
            {
                "finite momenta": found.finite,
                "two charged leptons": ak.num(found.leptons) == 2,
                "two quarks": ak.num(found.jets) == 2,
            },
        )
        leptons, quarks = hardest_first(found.leptons[keep]), hardest_first(found.jets[keep])
        features = table1(leptons, quarks, found.missing[keep])
        # Flavours, masses and balance of transverse momentum are checked on the way.
        momenta = visible_momenta(chunk_table(events, keep, features))
        linear, quadratic = production_estimate(momenta).T
        columns = {**features, "production_linear": linear, "production_quadratic": quadratic}
        return chunk_table(events, keep, columns), cutflow

    def process(self, events: Any) -> dict[str, Any]:
        """Write the chunk's table; return its name and the cutflow."""
        table, cutflow = self.event_table(events)
        return {"cutflow": cutflow, "parts": write_part(table, cutflow, events)}

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the sum over chunks as it is."""
        return accumulator
