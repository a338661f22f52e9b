"""Events together with the log-ratio terms that models give them, in one order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from milanalysis.events.tables import EventTable
from milanalysis.parameters import IntArray
from milanalysis.ratios.terms import GridTerms, PolynomialTerms

__all__ = ["ScoredEvents"]


@dataclass(frozen=True, eq=False)
class ScoredEvents:
    """Rows of a table and their log-ratio terms; whoever makes it has compared the event ids of both.

    Attributes:
        table: the events.
        terms: returns the terms of these events from a model, by its label.
        visible: returns their exact visible log ratios; None if these cannot be known.
    """

    table: EventTable
    terms: Callable[[str], PolynomialTerms | GridTerms]
    visible: Callable[[], PolynomialTerms | None]

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: IntArray) -> ScoredEvents:
        """Return some of the events, in the order of ``rows``."""

        def visible() -> PolynomialTerms | None:
            every = self.visible()
            return None if every is None else every.take(rows)

        return ScoredEvents(self.table.take(rows), lambda label: self.terms(label).take(rows), visible)
