"""Binning of a discriminant: `information_edges` keeps as much Fisher information as possible.

Bins of equal content (`milanalysis.statistics.templates.contents.quantile_edges`) need nothing but the
discriminant. Bins by information also need the dependence of each event's weight on the parameter, and are
finer where that changes most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from milanalysis.errors import TooFewEventsError
from milanalysis.parameters import EventPolynomials, FloatArray, IntArray
from milanalysis.statistics.templates.contents import quantile_edges

__all__ = ["binned_information", "information_edges", "weight_response"]

_CANDIDATES = 200


def weight_response(contents: FloatArray, reference: float) -> tuple[FloatArray, FloatArray]:
    """Return the weight of each event at the reference and its derivative with the parameter.

    Args:
        contents: weight of each event as a polynomial, ascending, shape ``(n_events, n_coefficients)``.
        reference: value of the parameter.
    """
    weights = EventPolynomials(contents)
    return weights.at(reference), weights.derivative().at(reference)


def binned_information(bins: IntArray, weights: FloatArray, responses: FloatArray) -> tuple[float, float]:
    """Return the Fisher information of one event that bins keep, and that of all that the weights tell.

    Only the shape counts: the information of the number of events is taken off.

    Args:
        bins: bin of each event, shape ``(n_events,)``.
        weights: of the events, shape ``(n_events,)``.
        responses: derivatives of the weights, shape ``(n_events,)``.

    Returns:
        Kept and total information, per event.
    """
    total, change = weights.sum(), responses.sum()
    content, response = np.bincount(bins, weights), np.bincount(bins, responses)
    filled = content > 0
    of_rate = (change / total) ** 2
    kept = float(np.sum(response[filled] ** 2 / content[filled]) / total - of_rate)
    return kept, float(np.sum(responses**2 / weights) / total - of_rate)


def information_edges(
    discriminant: npt.NDArray[np.floating], weights: FloatArray, responses: FloatArray, bins: int
) -> FloatArray:
    """Return the edges of the bins that lose the least information.

    The best partition of 200 bins of equal content into neighbouring groups is found exactly, by dynamic
    programming.

    Args:
        discriminant: value of each simulated event, shape ``(n_events,)``.
        weights: of the events at the reference, positive, shape ``(n_events,)``.
        responses: derivatives of the weights with the parameter, as `weight_response` returns them.
        bins: number of bins.

    Returns:
        Edges, shape ``(bins + 1,)``; the outermost are infinite.

    Raises:
        TooFewEventsError: if the discriminant takes so few values that bins would be empty.
    """
    n_fine = max(bins, min(_CANDIDATES, len(discriminant) // 20))
    edges = quantile_edges(discriminant, weights, n_fine)
    if n_fine == bins:
        return edges
    fine = np.searchsorted(edges[1:-1], discriminant, side="right")
    content = np.concatenate([[0.0], np.cumsum(np.bincount(fine, weights, n_fine))])
    response = np.concatenate([[0.0], np.cumsum(np.bincount(fine, responses, n_fine))])
    if not (np.diff(content) > 0).all():
        msg = (
            f"of {n_fine} fine bins some have no positive content; use fewer bins or events with positive "
            "weights"
        )
        raise TooFewEventsError(msg)
    # kept[i, j]: what one bin from fine edge i to fine edge j keeps
    width = content[None, :] - content[:, None]
    change = response[None, :] - response[:, None]
    kept = np.full_like(width, -np.inf)
    np.divide(change**2, width, out=kept, where=np.triu(np.ones_like(width, dtype=np.bool_), 1))
    best, origin = kept[0], []
    for _ in range(bins - 1):
        options = best[:, None] + kept
        origin.append(options.argmax(axis=0))
        best = options.max(axis=0)
    cuts = [n_fine]
    for previous in reversed(origin):
        cuts.append(int(previous[cuts[-1]]))
    chosen: FloatArray = edges[np.array([0, *reversed(cuts)])]
    return chosen
