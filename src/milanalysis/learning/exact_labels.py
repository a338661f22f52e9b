"""Labels to learn from: exact event weights, or their means over all that is not visible.

Which one to use when: event weights come with any simulation that was reweighted. They depend on the
neutrinos too, so for what a network sees they are noisy, with long tails. The exact visible ratio is the mean
of the event weights given what is visible. A loss whose optimum is the mean of its labels has the same
optimum with both, and gets there with fewer events by the second; but it exists for parton-level events of
one process only.

Measured on 400,000 held-out events with the quickstart's network trained on 440,000 (median of three members,
which differ by 0.001; the tail of the test events leaves 0.003), captured fraction of the visible
information: with the features of Table 1 of arXiv:2508.07114, 0.980 from event weights and 0.983 from exact
    labels; with those of
``processors/matrix_element_features.py`` and inputs with reflection and products, 0.995 from either. So what
is missing in the first case is mostly not noise of the labels but what a network does not find in events as
rare as those with hard quarks, and there the noise of event weights costs another 0.003.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from milanalysis.config import AnyModelConfig, PolynomialTaskConfig
from milanalysis.errors import ModelMismatchError
from milanalysis.events.tables import EventTable
from milanalysis.parameters import FloatArray

__all__ = ["uses_exact_labels", "with_exact_labels"]


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
