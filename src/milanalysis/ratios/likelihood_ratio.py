"""Likelihood ratios: what the statistics asks, whatever gives the answer.

Which one to use when:

- `ExactRatio`: event weights are known for the very events (simulation at parton level). It knows the
  neutrinos too.
- `ExactVisibleRatio`: the ratio of what is seen, in closed form, for parton-level events of the built-in
  process. The
  yardstick: no method that looks at visible quantities can be better.
- `NetworkRatio`: one trained network. What it is depends on how it was trained. A per-event model (a
  polynomial task, or any task at bag size 1) is defined for bags of any size, as the sum over the events:
  that is "f1->N" of arXiv:2101.07263. A pooled network trained on larger bags answers for bags of that size
  only.
- `milanalysis.learning.models.ensembles.EnsembleRatio`: several members, averaged; and `PointwiseRatio`, a
  network for each point. An ensemble cannot remove what all members have in common, which is the finite
  training sample.

Most of these are additive (`NetworkRatio.is_additive`): the log ratio of a dataset is a sum over its events,
`terms` gives the terms, and pseudo-experiments need nothing else. For a network with mean pooling trained on
bags of n events, the term of an event is its difference of outputs divided by n; with sum pooling it is that
difference. At another bag size this is an exact rescaling (the network alone would give a mean where a sum is
meant), so it happens only where it is asked for: by `terms`, or by `NetworkRatio.summed`.

The others have no terms. Networks with a layer of their own after the pooling, lists, a loss whose output is
the ratio itself, and probabilities averaged over members, if they were trained on bags of several events,
refuse events and bags of another size. `milanalysis.ratios.whole_bags.BagTerms` shows them every dataset in
bags of their size, so that they can still be compared with the rest on the same events.
"""

from __future__ import annotations

from typing import Protocol

from milanalysis.events.tables import EventTable
from milanalysis.parameters import FloatArray
from milanalysis.ratios.bags import Bags
from milanalysis.ratios.terms import GridTerms, PolynomialTerms

__all__ = ["LikelihoodRatio"]


class LikelihoodRatio(Protocol):
    """Anything that can rank parameter points for a bag of events."""

    @property
    def reference(self) -> FloatArray:
        """Point the ratios are taken against, shape ``(n_parameters,)``."""

    @property
    def bag_size(self) -> int | None:
        """Bag size the ratio is defined for; None: any."""

    def log_ratio(self, bags: Bags, theta: FloatArray) -> FloatArray:
        """Return ``ln p(bag|theta) / p(bag|reference)``, shape ``(n_bags, n_points)``."""

    def terms(self, table: EventTable) -> PolynomialTerms | GridTerms:
        """Return the log ratio's term of each event of a table."""
