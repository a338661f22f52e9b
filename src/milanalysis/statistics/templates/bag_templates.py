"""Templates of a discriminant of whole bags: one number for several events, counted in bins.

The log ratio of a bag at one point of the parameter is a discriminant like that of an event, with more
information in it. How many bags fall into a bin is not a polynomial in the coefficient: the weights of the
events of a bag multiply. Over a range that is not too wide a polynomial describes it well; it is fitted to
the shares of simulated bags at many points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from milanalysis.errors import TooFewEventsError
from milanalysis.parameters import FloatArray, IntArray, Parameter, powers
from milanalysis.ratios.terms import EventTerms
from milanalysis.statistics.calibration.calibrations import CalibrationSample
from milanalysis.statistics.likelihood.models import Addable
from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood
from milanalysis.statistics.templates.contents import Templates, quantile_edges
from milanalysis.statistics.templates.model import TemplateModel

__all__ = ["BagTemplateModel", "learn_bag_templates"]


@dataclass(frozen=True, eq=False)
class BagTemplateModel(Addable):
    """Counts of bags in bins as a method of inference.

    A dataset is cut into bags in the order of its rows; events left over at its end are not used.

    Attributes:
        templates: expected contents, of bags; one free factor scales them.
        terms: log ratios of the events the model can be shown.
        theta: point at which the log ratio of a bag is its discriminant.
        bag_size: events per bag.
        parameter: name, reference and range of the parameter.
    """

    templates: Templates
    terms: EventTerms
    theta: float
    bag_size: int
    parameter: Parameter

    def counts(self, rows: IntArray) -> IntArray:
        """Return the number of bags of a dataset in each bin, shape ``(n_bins,)``."""
        n_bags = len(rows) // self.bag_size
        bags = rows[: n_bags * self.bag_size].reshape(n_bags, self.bag_size)
        bins = self.templates.bin_numbers(self.terms.log_ratio(bags, self.theta)[:, 0])
        numbers: IntArray = np.bincount(bins, minlength=len(self.templates.contents))
        return numbers

    def observe(self, rows: IntArray) -> ProfileLikelihood:
        """Return the likelihood of a dataset; see `likelihood.models.LikelihoodModel.observe`."""
        return self.counting.observe_counts(self.counts(rows))

    @property
    def counting(self) -> TemplateModel:
        """The same as a template analysis of counts, for pyhf."""
        bins = np.arange(len(self.templates.contents))
        return TemplateModel(self.templates, bins, self.parameter)


def learn_bag_templates(
    terms: EventTerms,
    sample: CalibrationSample,
    parameter: Parameter,
    *,
    theta: float,
    bag_size: int,
    bins: int,
    n_bags: int,
    degree: int,
    rng: np.random.Generator,
) -> Templates:
    """Fill templates with simulated bags of many points, and describe each bin by a polynomial.

    Args:
        terms: log ratios of the events that the sample names by row.
        sample: simulated events with event weights.
        parameter: name, reference and range of the parameter.
        theta: point at which the log ratio of a bag is its discriminant.
        bag_size: events per bag.
        bins: of equal content at the reference.
        n_bags: drawn at each of ``2 degree + 5`` points.
        degree: of the polynomials.
        rng: source of randomness.

    Raises:
        TooFewEventsError: if a bin has no bags at some point, so that the range is too wide for bags of this
            size.
    """
    points = np.linspace(parameter.low, parameter.high, 2 * degree + 5)

    def discriminants(point: float) -> FloatArray:
        return terms.log_ratio(sample.bags(point, n_bags, bag_size, rng), theta)[:, 0]

    edges = quantile_edges(discriminants(parameter.reference), np.ones(n_bags), bins)
    numbers = [np.searchsorted(edges[1:-1], discriminants(float(point)), side="right") for point in points]
    shares = np.array([np.bincount(one, minlength=bins) for one in numbers]) / n_bags  # (n_points, bins)
    if not (shares > 0).all():
        position, number = np.argwhere(shares == 0)[0]
        msg = (
            f"of {n_bags} bags of {bag_size} events at {parameter.name} = {points[position]:g} none is in "
            f"bin {number} of {bins}; use smaller bags, fewer bins, or a narrower range of the parameter"
        )
        raise TooFewEventsError(msg)
    design = powers(points, degree).T
    contents, errors = np.empty((bins, degree + 1)), np.empty(bins)
    at_reference = powers(parameter.reference, degree)
    for number, share in enumerate(shares.T):
        weights = 1 / np.sqrt(share * (1 - share) / n_bags)
        covariance = np.linalg.inv((design * weights[:, None] ** 2).T @ design)
        contents[number] = covariance @ (design.T @ (weights**2 * share))
        errors[number] = np.sqrt(at_reference @ covariance @ at_reference) / (contents[number] @ at_reference)
    return Templates(edges, contents, errors)
