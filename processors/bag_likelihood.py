"""Bag networks evaluated inside a coffea processor: log ratios per bag, templates, and per-event scores.

The selection is that of the feature processor it is given. Models are loaded once per worker process, not once
per chunk: coffea unpickles the processor for every chunk, so nothing is kept on ``self``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hist
import numpy as np
from coffea import processor

from milanalysis.config import DiscriminantConfig
from milanalysis.events.processing.chunks import ChunkReader, chunk_name
from milanalysis.events.tables import EventTable, Split
from milanalysis.learning.models.stored import cached_model
from milanalysis.parameters import FloatArray
from milanalysis.ratios.bags import partition


class BagLikelihoodProcessor(processor.ProcessorABC):
    """Cuts the selected events of each chunk into bags and evaluates models on them.

    Bags do not reach across chunks. What is left at the end of a chunk is counted as remainder, and its
    per-event scores are there, so that no event is lost: the log ratio of a dataset is the sum over its bags plus
    the scores of the remainder. (A model whose ratio is not a sum over events cannot say anything about a remainder;
    later it is shown the bags of each dataset.)
    """

    def __init__(
        self,
        selection: ChunkReader,
        models: Mapping[str, Path],
        theta: FloatArray,
        *,
        bag_size: int = 50,
        splits: Sequence[Split] = tuple(Split),
        discriminant: DiscriminantConfig | None = None,
        edges: FloatArray | None = None,
        one_thread: bool = False,
    ) -> None:
        """Describe what is to be evaluated.

        Args:
            selection: the feature processor, for its ``event_table``.
            models: directories of the models, by label.
            theta: points of the log ratios per bag, shape ``(n_points, n_parameters)``; on the grid of every
                model that has one.
            bag_size: events per bag for models that take bags of any size; others have their own.
            splits: which events are put in bags and scored.
            discriminant: whose log ratio per event is histogrammed, at which point; None: no templates.
            edges: of the bins of the templates, shape ``(n_bins + 1,)``.
            one_thread: let TensorFlow use one thread, when chunks are worked on in several processes.
        """
        self.selection = selection
        self.models = dict(models)
        self.theta = theta
        self.bag_size = bag_size
        self.splits = tuple(splits)
        self.discriminant = discriminant
        self.edges = edges
        self.one_thread = one_thread

    def process(self, events: Any) -> dict[str, Any]:
        """Evaluate one chunk.

        Returns:
            cutflow: of the selection.
            bags: for each model and chunk the log ratios of its bags, shape ``(n_bags, n_points)``.
            counts: for each model the numbers of events selected, in bags, and left over.
            event_id: for each chunk the names of the scored events, in order.
            scores: for each model and chunk the file with the scores of these events; models whose ratio is not a sum
                over events have none.
            templates: for each chunk the histogram of the discriminant in the validation split, filled with weight
                times w_k; to be added in the order of the chunks.
        """
        table, cutflow = self.selection.event_table(events)
        chunk = chunk_name(events)
        rows = table.rows(*self.splits)
        output: dict[str, Any] = {
            "cutflow": cutflow,
            "event_id": {chunk: table.event_id[rows]},
            "bags": {},
            "counts": {},
            "scores": {},
        }
        for label, directory in self.models.items():
            ratio = cached_model(directory, one_thread=self.one_thread)
            bags, remainder = partition(table, rows, ratio.bag_size or self.bag_size)
            output["bags"][label] = {chunk: ratio.log_ratio(bags, self.theta)}
            output["counts"][label] = {
                "n_selected": len(rows),
                "n_bagged": bags.index.size,
                "n_remainder": len(remainder),
            }
            if events.metadata["scratch"] is not None and ratio.is_additive:
                path = Path(events.metadata["scratch"]) / label / f"{chunk}.npz"
                ratio.scores(table.take(rows)).save(path)
                output["scores"][label] = {chunk: str(path)}
            if self.discriminant is not None and self.discriminant.model == label:
                simulated = table.take(table.rows(Split.VALIDATION))
                values = ratio.scores(simulated).per_event(self.discriminant.theta)[:, 0]
                output["templates"] = {chunk: self.fill_templates(simulated, values)}
        return output

    def fill_templates(self, simulated: EventTable, discriminant: FloatArray) -> hist.Hist:
        """Fill ``weight * w_k`` of simulated events, for each bin and each power k of the coefficient."""
        contents = simulated.weights_at(0.0) * simulated.event_polynomials()
        templates = hist.Hist(
            hist.axis.Variable(self.edges, name="discriminant"),
            hist.axis.Integer(0, contents.shape[1], name="power"),
            storage=hist.storage.Weight(),
        )
        for power, weight in enumerate(contents.T):
            templates.fill(discriminant=discriminant, power=np.full(len(simulated), power), weight=weight)
        return templates

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the sum over chunks as it is."""
        return accumulator
