"""Labels to learn from: exact event weights, or their means over all that is not visible.

Which one to use when: event weights come with any simulation that was reweighted. They depend on the neutrinos too, so
for what a network sees they are noisy, with long tails. The exact visible ratio is the mean of the event weights given
what is visible. A loss whose optimum is the mean of its labels has the same optimum with both, and gets there with fewer
events by the second; but it exists for parton-level events of one process only.

Measured on 400,000 held-out events with the quickstart's network trained on 440,000 (median of three members, which differ
by 0.001; the tail of the test events leaves 0.003), captured fraction of the visible information: with the features of
Table 1 of arXiv:2508.07114, 0.980 from event weights and 0.983 from exact labels; with those of
``processors/matrix_element_features.py`` and inputs with reflection and products, 0.995 from either. So what is missing in
the first case is mostly not noise of the labels but what a network does not find in events as rare as those with hard
quarks, and there the noise of event weights costs another 0.003.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from milanalysis.config import AnyModelConfig, PolynomialTaskConfig
from milanalysis.errors import ModelMismatchError
from milanalysis.events.tables import EventTable, Split, concatenate
from milanalysis.learning.bags import with_background
from milanalysis.learning.scores import PolynomialScores, concatenate_scores, load_scores
from milanalysis.parameters import FloatArray

__all__ = ["training_table", "uses_exact_labels", "with_exact_labels"]


def uses_exact_labels(model: AnyModelConfig) -> bool:
    """Say whether a model is to learn from exact visible ratios instead of event weights."""
    return isinstance(model.task, PolynomialTaskConfig) and model.task.labels == "exact"


def with_exact_labels(table: EventTable, polynomials: FloatArray) -> EventTable:
    """Return a table for training whose event weights are exact visible ratios.

    Such a table is no truth to test against: it says nothing about the events beyond what is visible.

    Args:
        table: simulated events.
        polynomials: their exact visible ratios, ascending, shape ``(n_events, 5)``.

    Raises:
        ModelMismatchError: if these are not as many as the events of the table.
    """
    if polynomials.shape != (len(table), 5):
        msg = (
            f"exact labels of shape {polynomials.shape} do not belong to a table of {len(table)} events; run "
            "`milanalysis exact` again"
        )
        raise ModelMismatchError(msg)
    return replace(table, event_weights=np.ascontiguousarray(polynomials[:, 1:]))


def training_table(
    tables: Sequence[Path], labels: Sequence[Path], background: Sequence[Path] = ()
) -> EventTable:
    """Read the events that a network learns from: those of the training and of the validation split.

    Args:
        tables: parquet files of the simulated events; their rows are joined in this order.
        labels: files of exact visible scores, one for each table, whose polynomials replace the event weights; empty
            to learn from the event weights.
        background: parquet files of background events, which belong to no parameter point.

    Raises:
        InputFileError: naming the file that is missing or cannot be read.
        ModelMismatchError: if the labels do not belong to the tables.
    """
    table = concatenate([EventTable.read(path) for path in tables])
    if labels:
        scores = concatenate_scores([load_scores(path) for path in labels])
        if not isinstance(scores, PolynomialScores):
            msg = f"{labels[0]} does not hold polynomials; run `milanalysis exact` again"
            raise ModelMismatchError(msg)
        table = with_exact_labels(table, scores.polynomials[0])
    if background:
        table = with_background(table, [EventTable.read(path) for path in background])
    return table.take(table.rows(Split.TRAIN, Split.VALIDATION))
