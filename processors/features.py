"""Parton-level selection and the features of Table 1 (arXiv:2508.07114), from LHEF trees.

Copy this file, edit the selection or the features, and name the copy under ``processing.features`` in the
configuration. The bag processor uses the selection of this file too.
"""

from __future__ import annotations

from typing import Any

import awkward as ak
from coffea import processor

from milanalysis.events.chunks import Cutflow, apply_cuts, chunk_table, write_part
from milanalysis.events.features import finite_momenta, hardest_first, missing_momentum, table1
from milanalysis.events.tables import EventTable


class FeatureProcessor(processor.ProcessorABC):
    """Selects events with two charged leptons and two quarks, and describes them by 36 features."""

    def event_table(self, events: Any) -> tuple[EventTable, Cutflow]:
        """Select the events of a chunk and compute their features."""
        # Objects: what leaves the hard interaction, leptons and quarks each ordered by pT
        final = events.Particle[events.Particle.Status == 1]
        kind = abs(final.PID)
        leptons = hardest_first(final[(kind == 11) | (kind == 13)])
        quarks = hardest_first(final[(kind >= 1) & (kind <= 6)])
        visible = final[(kind != 12) & (kind != 14) & (kind != 16)]
        missing = missing_momentum(visible)

        # Selection, in the order of the cutflow
        keep, cutflow = apply_cuts(
            events,
            {
                "finite momenta": finite_momenta(visible),
                "two charged leptons": ak.num(leptons) == 2,
                "two quarks": ak.num(quarks) == 2,
            },
        )

        # Features by name: add, replace or drop columns here
        features = table1(leptons[keep], quarks[keep], missing[keep])
        return chunk_table(events, keep, features), cutflow

    def process(self, events: Any) -> dict[str, Any]:
        """Write the chunk's table to parquet; return its name and the cutflow."""
        table, cutflow = self.event_table(events)
        return {"cutflow": cutflow, "parts": write_part(table, events)}

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the sum over chunks as it is."""
        return accumulator
