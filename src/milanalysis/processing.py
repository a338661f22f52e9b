"""What coffea processors are written with: a processor imports everything from here.

`read_objects` gives leptons, jets and missing momentum of LHEF and Delphes files in one form, `apply_cuts`
counts what is rejected, `table1` computes the features of the paper, `chunk_table` and `write_part` keep the
selected events. A bag processor uses `cached_model` and `partition`, too. See processors/features.py and
processors/bag_likelihood.py.
"""

from __future__ import annotations

from milanalysis.events.features import table1
from milanalysis.events.objects import Objects, hardest_first, isolated_from, read_objects
from milanalysis.events.processing.chunks import ChunkReader, Cutflow, apply_cuts, chunk_name, chunk_table
from milanalysis.events.processing.parts import write_part
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.models.stored import cached_model
from milanalysis.parameters import FloatArray
from milanalysis.ratios.bags import partition
from milanalysis.simulation.exact.visible_momenta import production_estimate, visible_momenta

__all__ = [
    "ChunkReader",
    "Cutflow",
    "EventTable",
    "FloatArray",
    "Objects",
    "Split",
    "apply_cuts",
    "cached_model",
    "chunk_name",
    "chunk_table",
    "hardest_first",
    "isolated_from",
    "partition",
    "production_estimate",
    "read_objects",
    "table1",
    "visible_momenta",
    "write_part",
]
