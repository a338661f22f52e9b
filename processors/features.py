"""The selection and the features of Table 1 (arXiv:2508.07114), at parton level and at detector level.

Copy this file, edit the selection or the features, and name the copy under ``processing.features`` in the
configuration. The bag processor uses the selection of this file too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy.typing as npt
from coffea import processor

from milanalysis.processing import (
    Cutflow,
    EventTable,
    Objects,
    apply_cuts,
    chunk_table,
    hardest_first,
    isolated_from,
    read_objects,
    table1,
    write_part,
)


class FeatureProcessor(processor.ProcessorABC):
    """Selects events with two charged leptons and two quarks or jets, and describes them by their features.

    There are 36 features at parton level; the four flags of quark types do not exist at detector level, so
    there are 32.
    """

    def partons(self, found: Objects) -> tuple[ak.Array, ak.Array, Mapping[str, npt.ArrayLike]]:
        """Return leptons, quarks and cuts: what leaves the hard interaction is taken as it is."""
        return (
            found.leptons,
            found.jets,
            {
                "finite momenta": found.finite,
                "two charged leptons": ak.num(found.leptons) == 2,
                "two quarks": ak.num(found.jets) == 2,
            },
        )

    def reconstructed(self, found: Objects) -> tuple[ak.Array, ak.Array, Mapping[str, npt.ArrayLike]]:
        """Return leptons, jets and cuts at detector level (GeV)."""
        leptons = found.leptons[
            (found.leptons.pt > 10) & (abs(found.leptons.eta) < 2.5) & (found.leptons.isolation < 0.25)
        ]
        jets = found.jets[(found.jets.pt > 20) & (abs(found.jets.eta) < 5)]
        jets = jets[isolated_from(jets, leptons, 0.4)]  # overlap removal: an electron is a jet, too
        b_jets = jets[(jets.btag == 1) & (abs(jets.eta) < 2.5)]
        return (
            leptons,
            jets,
            {
                "finite momenta": found.finite,
                "two charged leptons": ak.num(leptons) == 2,
                "two jets or more": ak.num(jets) >= 2,
                "no b jet": ak.num(b_jets) == 0,
            },
        )

    def event_table(self, events: Any) -> tuple[EventTable, Cutflow]:
        """Select the events of a chunk and compute their features."""
        found = read_objects(events)
        leptons, jets, cuts = self.partons(found) if found.level == "parton" else self.reconstructed(found)
        keep, cutflow = apply_cuts(events, cuts)

        # Features by name: add, replace or drop columns here
        features = table1(hardest_first(leptons[keep]), hardest_first(jets[keep]), found.missing[keep])
        return chunk_table(events, keep, features), cutflow

    def process(self, events: Any) -> dict[str, Any]:
        """Write the chunk's table; return its name and the cutflow."""
        table, cutflow = self.event_table(events)
        return {"cutflow": cutflow, "parts": write_part(table, cutflow, events)}

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the sum over chunks as it is."""
        return accumulator
