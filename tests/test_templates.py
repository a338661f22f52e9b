"""The template analysis: pyhf against closed forms, and the profile against pyhf's own fit."""

from __future__ import annotations

import json

import hist
import numpy as np
import pyhf
import pytest
from scipy.stats import norm

from milanalysis.errors import EventWeightError, TooFewEventsError
from milanalysis.events.tables import EventTable
from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.inference.fits import FitResult, Status, fit, measure
from milanalysis.statistics.templates.contents import Templates, quantile_edges
from milanalysis.statistics.templates.eft_modifier import EFT_MODIFIERS
from milanalysis.statistics.templates.model import TemplateModel, pyhf_backend
from milanalysis.statistics.templates.result import TemplateResult

PARAMETER = Parameter(name="cHW")
CONTENTS = np.array(
    [[200.0, 100.0, 50.0, 5.0, 1.0], [300.0, -100.0, 40.0, -5.0, 2.0], [500.0, 40.0, 90.0, 0.0, 3.0]]
)
EDGES = np.array([-np.inf, -1.0, 1.0, np.inf])
COUNTS = np.array([230, 260, 520])
MC_ERRORS = np.array([0.02, 0.0, 0.05])


def model(errors=None, **options):
    errors = np.zeros(3) if errors is None else errors
    return TemplateModel(Templates(EDGES, CONTENTS, errors), np.repeat([0, 1, 2], 600), PARAMETER, **options)


def rows_of(counts):
    return np.concatenate(
        [np.arange(600 * number, 600 * number + count) for number, count in enumerate(counts)]
    )


def pyhf_twice_nll(one, counts, values):
    """``-2 log pdf`` of pyhf, with parameters by name."""
    with pyhf_backend():
        pdf = one.pyhf_model(counts)
        pars = [values[name] for name in pdf.config.par_names]
        return -2 * float(pdf.logpdf(pars, [*counts.astype(float), *pdf.config.auxdata])[0])


@pytest.mark.parametrize("c", [-0.7, 0.0, 0.4])
def test_pyhf_expects_the_polynomial_in_every_bin(c):
    with pyhf_backend():
        pdf = model().pyhf_model(COUNTS)
        pars = [{"cHW": c, "normalisation": 1.5}[name] for name in pdf.config.par_names]
        expected = pdf.expected_data(pars, include_auxdata=False)
    np.testing.assert_allclose(expected, 1.5 * CONTENTS @ c ** np.arange(5), rtol=1e-13)


def test_the_modifier_works_in_a_batch():
    spec = {"channels": model().workspace(COUNTS)["channels"]}
    with pyhf_backend():
        pdf = pyhf.Model(spec, modifier_set=EFT_MODIFIERS, validate=False, poi_name="cHW", batch_size=2)
        order = pdf.config.par_names
        pars = [[{"cHW": c, "normalisation": 1.0}[name] for name in order] for c in (0.1, -0.3)]
        expected = pdf.expected_data(pars, include_auxdata=False)
    np.testing.assert_allclose(expected, [CONTENTS @ c ** np.arange(5) for c in (0.1, -0.3)], rtol=1e-13)


def test_a_modifier_with_the_wrong_number_of_bins_is_refused():
    spec = {"channels": model().workspace(COUNTS)["channels"]}
    spec["channels"][0]["samples"][0]["modifiers"][0]["data"]["coefficients"].pop()
    with pytest.raises(pyhf.exceptions.InvalidModifier, match="2 bins and sample 'signal'"):
        pyhf.Model(spec, modifier_set=EFT_MODIFIERS, validate=False, poi_name="cHW")


@pytest.mark.parametrize("with_rate", [False, True])
@pytest.mark.parametrize("errors", [None, MC_ERRORS], ids=["exact templates", "MC errors"])
def test_the_likelihood_is_that_of_pyhf_at_the_best_nuisance_parameters(errors, with_rate):
    one = model(errors, with_rate=with_rate)
    likelihood = one.observe(rows_of(COUNTS))
    differences = []
    for c in (-0.5, 0.0, 0.3, 1.0):
        nominal = one.templates.expected(np.array([[c]]))
        contents, factors = one._profiled(COUNTS, nominal, one.templates.relative_errors**2)
        values = {"cHW": c, "normalisation": float((contents / factors / nominal)[0, 0])}
        values |= {f"mc_statistics[{number}]": float(factor) for number, factor in enumerate(factors[0])}
        differences.append(pyhf_twice_nll(one, COUNTS, values) - likelihood(c))
        for name in [name for name in values if name != "cHW" and (errors is not None or "mc" not in name)]:
            if (with_rate and name == "normalisation") or name == "mc_statistics[1]":
                continue  # fixed in the model
            for shift in (-1e-4, 1e-4):  # nothing nearby is better
                nearby = {**values, name: values[name] + shift}
                assert pyhf_twice_nll(one, COUNTS, nearby) > pyhf_twice_nll(one, COUNTS, values)
    np.testing.assert_allclose(differences, differences[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("with_rate", [False, True])
@pytest.mark.parametrize("errors", [None, MC_ERRORS], ids=["exact templates", "MC errors"])
def test_the_minimum_of_the_profile_is_that_of_pyhfs_own_fit(errors, with_rate):
    one = model(errors, with_rate=with_rate)
    ours, theirs = fit(one.observe_counts(COUNTS)), one.fit_with_pyhf(COUNTS)
    assert theirs.status is Status.VALID
    assert theirs.parameters[:2] == ("cHW", "normalisation")
    # both stop within a thousandth of the expected distance to the minimum; the standard deviation is 0.06
    assert ours.estimate == pytest.approx(theirs.estimate, abs=3e-4)
    assert ours.errors[0] == pytest.approx(theirs.errors[0], rel=5e-3)


def test_shape_and_rate_are_the_shape_times_the_poisson_probability_of_the_total():
    points = np.linspace(-1, 1, 5)[:, None]
    shape, both = model().observe_counts(COUNTS), model(with_rate=True).observe_counts(COUNTS)
    nu = model().templates.expected(points).sum(axis=1)
    poisson = 2 * (nu - COUNTS.sum() * np.log(nu))
    difference = both.evaluate(points) - shape.evaluate(points) - poisson
    np.testing.assert_allclose(difference, difference[0], rtol=0, atol=1e-9)


def test_a_single_bin_has_its_closed_form():
    templates = Templates(np.array([-np.inf, np.inf]), np.array([[1000.0, 300.0]]), np.array([0.01]))
    one = TemplateModel(templates, np.zeros(2000, dtype=np.int64), PARAMETER, with_rate=True)
    result, found = measure(one.observe(np.arange(1060)))
    assert result.estimate == pytest.approx(0.2, abs=1e-4)
    # information = (d nu / d c)^2 / (nu + (nu delta)^2), here with nu at the minimum
    assert result.curvature == pytest.approx(300**2 / (1060 + 10.6**2), rel=1e-4)
    assert found.high - found.low == pytest.approx(2 * np.sqrt(1060 + 10.6**2) / 300, rel=5e-3)


def test_the_binned_information_is_the_sum_over_bins():
    nominal, slope = CONTENTS[:, 0], CONTENTS[:, 1]
    asimov = nominal.astype(np.int64)
    information = np.sum(slope**2 / nominal)
    assert fit(model(with_rate=True).observe_counts(asimov)).curvature == pytest.approx(information, rel=2e-3)
    shape_only = information - slope.sum() ** 2 / nominal.sum()
    assert fit(model().observe_counts(asimov)).curvature == pytest.approx(shape_only, rel=2e-3)


def test_binning_the_score_of_the_toy_loses_what_binning_has_to_lose():
    toy, rng = QuadraticEFT(0.3), np.random.default_rng(0)
    events = toy.sample(rng, 100_000)
    u, _ = toy.amplitudes(events)
    edges = quantile_edges(u, np.ones(len(u)), 20)
    histogram = hist.Hist(
        hist.axis.Variable(edges, name="discriminant", flow=False),
        hist.axis.Integer(0, 5, name="power", flow=False),
        storage=hist.storage.Weight(),
    )
    for power, weights in enumerate(toy.polynomials(events).T):
        histogram.fill(discriminant=u, power=power, weight=weights)
    templates = Templates.from_hist(histogram, nu=1000.0)
    np.testing.assert_allclose(templates.contents[:, 0], 50, rtol=1e-12)
    np.testing.assert_allclose(templates.relative_errors, np.sqrt(1 / 5000), rtol=1e-12)
    one = TemplateModel(templates, templates.bin_numbers(u), PARAMETER)
    kept = [2 * u[one.bins == number].mean() for number in range(20)]
    expected = 1000 * np.var(kept)  # information that the bin means of the score 2u carry
    # Monte Carlo errors of 100 000 events on data of 1000 add 1 % to the variance
    asimov = templates.contents[:, 0].round().astype(np.int64)
    assert fit(one.observe_counts(asimov)).curvature == pytest.approx(expected / 1.01, rel=5e-3)
    assert 0.97 * 300 < expected < 0.995 * 300


def test_events_are_counted_in_the_bins_of_the_histogram():
    templates = Templates(EDGES, CONTENTS, np.zeros(3))
    discriminant = np.array([-7.0, -1.0, 0.0, 1.0, 9.0])
    np.testing.assert_array_equal(templates.bin_numbers(discriminant), [0, 1, 1, 2, 2])
    histogram = hist.Hist(hist.axis.Variable(EDGES, flow=False)).fill(discriminant)
    np.testing.assert_array_equal(histogram.values(), np.bincount(templates.bin_numbers(discriminant)))
    one = TemplateModel(templates, templates.bin_numbers(discriminant), PARAMETER)
    np.testing.assert_array_equal(one.counts(np.array([0, 0, 4])), [2, 0, 1])


def test_quantiles_respect_weights():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=20_000), rng.exponential(size=20_000)
    edges = quantile_edges(values, weights, 10)
    content, _ = np.histogram(values, np.clip(edges, -99, 99), weights=weights)
    np.testing.assert_allclose(content, weights.sum() / 10, atol=weights.max())


def test_a_discriminant_with_too_few_values_is_refused():
    with pytest.raises(TooFewEventsError, match="takes 2 different values in 100 events; use fewer bins"):
        quantile_edges(np.repeat([0.0, 1.0], 50), np.ones(100), 5)
    with pytest.raises(TooFewEventsError, match="no events to divide into 5 bins"):
        quantile_edges(np.empty(0), np.empty(0), 5)


def test_a_bin_that_may_be_empty_is_refused_by_number():
    contents = CONTENTS.copy()
    contents[1] = [100.0, -150.0, 0.0, 0.0, 0.0]
    with pytest.raises(EventWeightError, match="bin 1 of 3 is -50 at cHW = 1"):
        TemplateModel(Templates(EDGES, contents, np.zeros(3)), np.zeros(1, dtype=np.int64), PARAMETER)


def test_a_histogram_without_weighted_storage_is_refused():
    histogram = hist.Hist(hist.axis.Variable(EDGES, flow=False), hist.axis.Integer(0, 5, flow=False))
    with pytest.raises(ValueError, match="Weight"):
        Templates.from_hist(histogram)


def test_a_dataset_without_events_has_no_shape():
    with np.errstate(all="raise"):
        assert fit(model().observe_counts(np.zeros(3, dtype=np.int64))).status is Status.FAILED


def test_pyhf_is_not_asked_for_the_shape_of_nothing(caplog):
    result = model().fit_with_pyhf(np.zeros(3, dtype=np.int64))
    assert result.status is Status.FAILED
    assert "no events" in result.message
    assert not caplog.records


def test_data_beyond_the_range_end_at_the_limit_in_both_fits():
    one = model(with_rate=True)
    assert one.fit_with_pyhf(3 * COUNTS).status is Status.AT_LIMIT
    assert fit(one.observe_counts(3 * COUNTS)).status is Status.AT_LIMIT


def test_the_backend_of_pyhf_is_restored_also_after_an_error():
    before = pyhf.get_backend()
    with pyhf_backend():
        assert pyhf.get_backend()[1].name == "minuit"
    with pytest.raises(ZeroDivisionError), pyhf_backend():
        1 / 0  # noqa: B018
    assert pyhf.get_backend() == before


# pyhf 0.7.6 checks measurements with a class that jsonschema has deprecated; nothing else warns
@pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")
def test_the_workspace_is_read_by_pyhf():
    one = model(MC_ERRORS)
    text = json.dumps(one.workspace(COUNTS), allow_nan=False)
    workspace = pyhf.Workspace(json.loads(text), validate=False)
    with pyhf_backend():
        pdf = workspace.model(modifier_set=EFT_MODIFIERS, validate=False)
        parameters = pyhf.infer.mle.fit(workspace.data(pdf), pdf)
        assert pdf.config.poi_name == "cHW"
        assert pdf.config.suggested_bounds()[pdf.config.poi_index] == [-1.0, 1.0]
        estimate = parameters[pdf.config.poi_index]
    assert estimate == pytest.approx(one.fit_with_pyhf(COUNTS).estimate, abs=2e-3)


def test_the_result_survives_json():
    one = model(MC_ERRORS)
    result = TemplateResult(
        "cHW", "log ratio", one.templates, tuple(COUNTS.tolist()), one.fit_with_pyhf(COUNTS)
    )
    again = from_plain(TemplateResult, json.loads(json.dumps(to_plain(result), allow_nan=False)))
    assert isinstance(again.fit, FitResult)
    assert again.fit == result.fit
    assert again.counts == result.counts
    np.testing.assert_array_equal(again.templates.edges, EDGES)
    np.testing.assert_array_equal(again.templates.contents, CONTENTS)


def test_intervals_have_the_width_of_the_information():
    asimov = CONTENTS[:, 0].astype(np.int64)
    result, found = measure(model(with_rate=True).observe_counts(asimov), 0.95)
    assert found.high - found.low == pytest.approx(2 * norm.ppf(0.975) * result.errors[0], rel=0.02)


def test_templates_hold_weights_of_events_at_every_power(small_run):
    table = EventTable.read(small_run[1] / "tables" / "reference" / "events.parquet")
    values = table.column("m_ll")
    edges = np.array([-np.inf, 25.0, 40.0, 60.0, np.inf])
    found = Templates.filled(edges, values, table)
    contents = table.weight[:, None] * table.event_polynomials()
    which = np.searchsorted(edges[1:-1], values, side="right")
    expected = np.array([contents[which == k].sum(axis=0) for k in range(4)])
    np.testing.assert_allclose(found.contents, expected, rtol=1e-9, atol=1e-12)
    errors = np.sqrt([np.square(contents[which == k, 0]).sum() for k in range(4)]) / expected[:, 0]
    np.testing.assert_allclose(found.relative_errors, errors, rtol=1e-9)
