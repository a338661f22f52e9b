"""Bag networks evaluated inside a coffea processor: log ratios of bags, and the terms of single events.

The selection is that of the feature processor it is given. Models are loaded once per worker process, not
once per chunk: coffea unpickles the processor for every chunk, so nothing is kept on ``self``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coffea import processor

from milanalysis.processing import ChunkReader, FloatArray, Split, cached_model, chunk_name, partition


class BagLikelihoodProcessor(processor.ProcessorABC):
    """Cuts the selected events of each chunk into bags and evaluates models on them.

    Bags do not reach across chunks. What is left at the end of a chunk is counted as remainder, and the terms
    of its events are there, so that no event is lost: the log ratio of a dataset is the sum over its bags
    plus the terms of the remainder. (A model whose ratio is not a sum over events cannot say anything about a
    remainder.)
    """

    def __init__(
        self,
        selection: ChunkReader,
        models: Mapping[str, Path],
        theta: FloatArray,
        *,
        bag_size: int = 50,
        splits: Sequence[Split] = tuple(Split),
        one_thread: bool = False,
    ) -> None:
        """Describe what is to be evaluated.

        Args:
            selection: the feature processor, for its ``event_table``.
            models: directories of the models, by label.
            theta: points of the log ratios of bags, shape ``(n_points, n_parameters)``; models that know a
                grid are evaluated there.
            bag_size: events per bag for models that take bags of any size; others have their own.
            splits: which events are put in bags.
            one_thread: let TensorFlow use one thread, when chunks are worked on in several processes.
        """
        self.selection = selection
        self.models = dict(models)
        self.theta = theta
        self.bag_size = bag_size
        self.splits = tuple(splits)
        self.one_thread = one_thread

    def process(self, events: Any) -> dict[str, Any]:
        """Evaluate one chunk.

        Returns:
            cutflow: of the selection.
            event_id: for each chunk the names of the events, in order.
            points: for each model and chunk the points of its log ratios, shape ``(n_points, n_parameters)``.
            bags: for each model and chunk the log ratios of its bags, shape ``(n_bags, n_points)``.
            counts: for each model the numbers of events selected, in bags, and left over.
            terms: for each model and chunk the file with the log-ratio terms of the events; models whose
                ratio is not a sum over events have none.
        """
        table, cutflow = self.selection.event_table(events)
        chunk = chunk_name(events)
        rows = table.rows(*self.splits)
        output: dict[str, Any] = {
            "cutflow": cutflow,
            "event_id": {chunk: table.event_id[rows]},
            "points": {},
            "bags": {},
            "counts": {},
            "terms": {},
        }
        for label, directory in self.models.items():
            ratio = cached_model(directory, one_thread=self.one_thread)
            bags, remainder = partition(table, rows, ratio.bag_size or self.bag_size)
            points = self.theta if ratio.grid is None else ratio.grid
            output["points"][label] = {chunk: points}
            output["bags"][label] = {chunk: ratio.log_ratio(bags, points)}
            output["counts"][label] = {
                "n_selected": len(rows),
                "n_bagged": bags.index.size,
                "n_remainder": len(remainder),
            }
            if events.metadata["scratch"] is not None and ratio.is_additive:
                path = Path(events.metadata["scratch"]) / label / f"{chunk}.npz"
                ratio.terms(table.take(rows)).save(path)
                output["terms"][label] = {chunk: str(path)}
        return output

    def postprocess(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        """Return the sum over chunks as it is."""
        return accumulator
