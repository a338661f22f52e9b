"""CLs limits against closed forms, and bins that keep the information."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from milanalysis.errors import ConfigError
from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.templates.binning import binned_information, information_edges, weight_response
from milanalysis.statistics.templates.contents import Templates, quantile_edges
from milanalysis.statistics.templates.limits import Outcome, _crossing, cls_limit
from milanalysis.statistics.templates.model import TemplateModel

PARAMETER = Parameter(name="c")


def counting(slope=300.0, **parameter):
    templates = Templates(np.array([-np.inf, np.inf]), np.array([[1000.0, slope]]), np.zeros(1))
    return TemplateModel(
        templates, np.zeros(1, dtype=np.int64), Parameter(name="c", **parameter), with_rate=True
    )


def closed_form(n, level=0.95, shift=None):
    """CLs of a Poisson count with expectation 1000 + 300 c, asymptotic."""

    def twice_nll(c, n):
        nu = 1000 + 300 * c
        return 2 * (nu - n * np.log(nu))

    def q(c, n):
        best = min(max((n - 1000) / 300, 0.0), 1.0)
        return 0.0 if best > c else twice_nll(c, n) - twice_nll(best, n)

    def cls(c):
        asimov = np.sqrt(q(c, 1000))
        if shift is not None:  # the median, moved by a number of standard deviations of the count
            return norm.sf(asimov - shift) / norm.cdf(shift)
        root = np.sqrt(q(c, n))
        if root > asimov:  # beyond the largest value of the bounded statistic's normal part
            distance = (root**2 - asimov**2) / (2 * asimov)
            return norm.sf(distance + asimov) / norm.sf(distance)
        return norm.sf(root) / norm.sf(root - asimov)

    return brentq(lambda c: cls(c) - (1 - level), 1e-3, 1.0)


@pytest.mark.parametrize("n", [980, 1000, 1030])
def test_the_limit_of_a_count_has_its_closed_form(n):
    found = cls_limit(counting(), np.array([n]))
    assert found.observed == pytest.approx(closed_form(n), rel=2e-3)
    expected = [closed_form(1000, shift=shift) for shift in (-1, 0, 1)]
    np.testing.assert_allclose(sorted(found.expected[1:4]), sorted(expected), rtol=5e-3)
    assert list(found.expected) == sorted(found.expected)


def test_the_limit_from_below_is_the_mirror_image():
    mirrored = cls_limit(counting(-300.0), np.array([1010]), upper=False)
    assert mirrored.observed == pytest.approx(-cls_limit(counting(), np.array([1010])).observed, rel=1e-6)


def test_what_is_not_excluded_has_no_limit():
    assert cls_limit(counting(5.0), np.array([1000])).observed is None
    with pytest.raises(ConfigError, match=r"reference is 0\.1"):
        cls_limit(counting(reference=0.1), np.array([1000]))


def test_a_shape_alone_has_a_limit_close_to_that_of_its_information():
    contents = np.array([[400.0, 200.0], [600.0, -200.0]])
    model = TemplateModel(
        Templates(np.array([-np.inf, 0, np.inf]), contents, np.zeros(2)),
        np.zeros(1, dtype=np.int64),
        PARAMETER,
    )
    found = cls_limit(model, np.array([400, 600]))
    information = np.sum(contents[:, 1] ** 2 / contents[:, 0])
    # CLs of a Gaussian measurement at the reference: 1.96 standard deviations; the Poisson bends it a little
    assert found.observed == pytest.approx(norm.isf(0.025) / np.sqrt(information), rel=0.03)


@pytest.fixture(scope="module")
def toy():
    one = QuadraticEFT(0.3)
    events = one.sample(np.random.default_rng(80), 40_000)
    u, _ = one.amplitudes(events)
    return u, *weight_response(one.polynomials(events), 0.0)


@pytest.mark.parametrize("bins", [2, 5, 20])
def test_bins_by_information_lose_less_than_bins_of_equal_content(toy, bins):
    u, weights, responses = toy
    kept = []
    for edges in (quantile_edges(u, weights, bins), information_edges(u, weights, responses, bins)):
        assert len(edges) == bins + 1
        assert (np.diff(edges) > 0).all()
        share, total = binned_information(np.searchsorted(edges[1:-1], u, side="right"), weights, responses)
        kept.append(share / total)
    assert kept[0] < kept[1] <= 1
    assert total == pytest.approx(0.3, rel=0.03)
    # two bins of a normal score keep at most 2 / pi; five and twenty nearly all
    assert kept[1] > {2: 0.6, 5: 0.9, 20: 0.99}[bins]


def test_the_best_of_few_partitions_is_found(toy):
    u, weights, responses = (column[:1000] for column in toy)
    edges = information_edges(u, weights, responses, 3)
    best, total = binned_information(np.searchsorted(edges[1:-1], u, side="right"), weights, responses)
    inner = quantile_edges(u, weights, 50)[1:-1]
    tried = [
        binned_information(np.searchsorted([low, high], u, side="right"), weights, responses)[0]
        for i, low in enumerate(inner)
        for high in inner[i + 1 :]
    ]
    assert best == pytest.approx(max(tried), rel=1e-12)
    assert best < total


def test_a_limit_that_does_not_exist_says_why():
    far = cls_limit(counting(slope=1.0), np.array([1000]))
    assert (far.observed, far.outcomes[0]) == (None, Outcome.NOTHING_EXCLUDED)
    found = cls_limit(counting(), np.array([1000]))
    assert found.outcomes == (Outcome.LIMIT,) * 6
    values = {"low": (0.01,) * 6, "nan": (np.nan,) * 6}
    for name, outcome in (("low", Outcome.ALL_EXCLUDED), ("nan", Outcome.UNKNOWN)):
        one = values[name]
        assert _crossing(lambda _, one=one: one, 0, 0.05, (0.001, 1.0), (one[0], one[0])) == (None, outcome)

    def broken(theta):
        return (np.nan if 0.9 < theta < 0.99 else 1 - theta,)

    assert _crossing(broken, 0, 0.05, (0.001, 1.0), (0.999, 0.0)) == (None, Outcome.UNKNOWN)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_hardly_any_event_where_a_thousand_are_expected_gives_a_limit_or_a_reason(n):
    found = cls_limit(counting(), np.array([n]))
    for value, outcome in zip((found.observed, *found.expected), found.outcomes, strict=True):
        assert (value is None) == (outcome is not Outcome.LIMIT)
    # far below the expectation CLs excludes strongly, or pyhf cannot say; never "nothing is excluded"
    assert found.outcomes[0] is not Outcome.NOTHING_EXCLUDED
