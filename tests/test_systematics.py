"""Background and systematic uncertainties of templates: the function of pyhf, and effects on intervals."""

from __future__ import annotations

import json

import numpy as np
import pyhf
import pytest
from scipy.stats import norm

from milanalysis.errors import EventWeightError
from milanalysis.files.records import from_plain, to_plain
from milanalysis.parameters import Parameter
from milanalysis.simulation.toys import QuadraticEFT
from milanalysis.statistics.inference.fits import Status, fit, measure
from milanalysis.statistics.repetition.datasets import draw
from milanalysis.statistics.repetition.pseudo_experiments import run
from milanalysis.statistics.templates.contents import Templates, quantile_edges
from milanalysis.statistics.templates.eft_modifier import EFT_MODIFIERS
from milanalysis.statistics.templates.limits import cls_limit
from milanalysis.statistics.templates.model import TemplateModel, pyhf_backend
from milanalysis.statistics.templates.systematics import BackgroundTemplate, TemplateSystematic

PARAMETER = Parameter(name="c")
EDGES = np.array([-np.inf, -1.0, 1.0, np.inf])
CONTENTS = np.array([[200.0, 100.0, 50.0], [300.0, -100.0, 40.0], [500.0, 40.0, 90.0]])
BACKGROUND = np.array([90.0, 60.0, 50.0])
COUNTS = np.array([310, 330, 590])
SCALE = TemplateSystematic.of(
    "scale", CONTENTS[:, 0], np.array([230.0, 300, 540]), np.array([190.0, 290, 450])
)
TILT = TemplateSystematic.of("tilt", CONTENTS[:, 0], np.array([220.0, 300, 480]), np.array([180.0, 300, 520]))


def model(normalisation="free", systematics=(SCALE, TILT), errors=0.02, **options):
    background = BackgroundTemplate(BACKGROUND, errors * BACKGROUND, normalisation)
    templates = Templates(EDGES, CONTENTS, np.full(3, errors), background, systematics)
    return TemplateModel(templates, np.zeros(1, dtype=np.int64), PARAMETER, **options)


@pytest.mark.parametrize("one", [SCALE, TILT], ids=lambda one: one.name)
def test_the_interpolation_is_pyhfs_own(one):
    alphas = np.array([-3.0, -1.0, -0.4, 0.0, 0.7, 1.0, 2.5])
    nominal = CONTENTS[:, 0]
    total = pyhf.interpolators.code4([[[[one.total_down], [1.0], [one.total_up]]]])
    np.testing.assert_allclose(one.total_factor(alphas), np.ravel(total(alphas[None])), rtol=1e-12)
    shape = pyhf.interpolators.code4p([[[nominal * one.shape_down, nominal, nominal * one.shape_up]]])
    shifts = np.reshape(shape(alphas[None]), (len(alphas), 3))
    np.testing.assert_allclose(one.shape_shift(alphas) * nominal, shifts, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("with_rate", [False, True])
@pytest.mark.parametrize("normalisation", ["known", "free", 0.1])
def test_the_likelihood_with_nuisances_is_that_of_pyhf(normalisation, with_rate):
    one = model(normalisation, with_rate=with_rate)
    likelihood = one.observe_counts(COUNTS)
    names = [name for name in likelihood.parameters if name != "c"]
    assert names == [*(["background"] if normalisation != "known" else []), "scale", "tilt"]
    differences = []
    with pyhf_backend():
        pdf = one.pyhf_model(COUNTS)
        data = [*COUNTS.astype(float), *pdf.config.auxdata]
        for values in ([0.2, 0.8, 0.5, -0.4], [-0.3, 1.2, -1.5, 2.0], [0.0, 1.0, 0.0, 0.0]):
            point = np.array([values if normalisation != "known" else [values[0], *values[2:]]])
            nominal = one.expected(point)
            contents, factors = one._profiled(COUNTS, nominal, one._relative_errors() ** 2)
            known = dict(zip(likelihood.parameters, point[0], strict=True))
            known["normalisation"] = float((contents / factors / nominal)[0, 0])
            known |= {f"mc_statistics[{i}]": float(factor) for i, factor in enumerate(factors[0])}
            pars = [known[name] for name in pdf.config.par_names]
            differences.append(-2 * float(pdf.logpdf(pars, data)[0]) - likelihood.evaluate(point)[0])
    np.testing.assert_allclose(differences, differences[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("normalisation", ["free", 0.1])
def test_the_fit_with_nuisances_is_that_of_pyhf(normalisation):
    one = model(normalisation, with_rate=True)
    ours, theirs = fit(one.observe_counts(COUNTS)), one.fit_with_pyhf(COUNTS)
    assert theirs.status is Status.VALID
    for name in ours.parameters:
        mine, its = ours.parameters.index(name), theirs.parameters.index(name)
        # both stop within a thousandth of the expected distance to the minimum
        assert ours.estimates[mine] == pytest.approx(theirs.estimates[its], abs=0.01 * ours.errors[mine])
        assert ours.errors[mine] == pytest.approx(theirs.errors[its], rel=0.01)


def test_an_uncertainty_shared_by_both_processes_is_one_parameter():
    luminosity = TemplateSystematic.of_total("luminosity", 1.03, 3)
    background = BackgroundTemplate(BACKGROUND, 0.02 * BACKGROUND, 0.1, (luminosity,))
    templates = Templates(EDGES, CONTENTS, np.full(3, 0.02), background, (TILT, luminosity))
    one = TemplateModel(templates, np.zeros(1, dtype=np.int64), PARAMETER, with_rate=True)
    ours, theirs = fit(one.observe_counts(COUNTS)), one.fit_with_pyhf(COUNTS)
    assert ours.parameters == ("c", "background", "luminosity", "tilt")
    total = one.expected(np.array([[0.1, 0.0, 2.0, 0.0]]))
    np.testing.assert_allclose(total, 1.03**2 * one.expected(np.array([[0.1, 0.0, 0.0, 0.0]])), rtol=1e-12)
    for name in ours.parameters:
        mine, its = ours.parameters.index(name), theirs.parameters.index(name)
        assert ours.estimates[mine] == pytest.approx(theirs.estimates[its], abs=0.01 * ours.errors[mine])
        assert ours.errors[mine] == pytest.approx(theirs.errors[its], rel=0.01)


def test_what_is_not_known_costs_width_in_the_right_order():
    def width(*arguments):
        found = measure(model(*arguments, with_rate=True).observe_counts(COUNTS), 0.6827)[1]
        assert found.valid
        return found.high - found.low

    known = width("known", ())
    assert known < width(0.1, ()) < width("free", ()) < width("free", (SCALE,))
    assert known < width("known", (TILT,)) < width("known", (TILT, SCALE))


def test_a_single_bin_with_an_uncertain_background_has_its_closed_form():
    background = BackgroundTemplate(np.array([200.0]), np.array([0.0]), 0.1)
    templates = Templates(np.array([-np.inf, np.inf]), np.array([[800.0, 300.0]]), np.zeros(1), background)
    one = TemplateModel(templates, np.zeros(1, dtype=np.int64), PARAMETER, with_rate=True)
    result = fit(one.observe_counts(np.array([1060])))
    assert result.estimate == pytest.approx(0.2, abs=1e-4)
    # variance of the count, and of the background whose logarithm is known to ln 1.1
    assert result.curvature == pytest.approx(300**2 / (1060 + (200 * np.log(1.1)) ** 2), rel=2e-3)


# pyhf 0.7.6 checks measurements with a class that jsonschema has deprecated; nothing else warns
@pytest.mark.filterwarnings("ignore:jsonschema.RefResolver is deprecated:DeprecationWarning")
def test_the_workspace_with_nuisances_is_read_by_pyhf():
    one = model("free", with_rate=True)
    text = json.dumps(one.workspace(COUNTS), allow_nan=False)
    kinds = {
        modifier["type"]
        for sample in json.loads(text)["channels"][0]["samples"]
        for modifier in sample["modifiers"]
    }
    assert kinds == {"eft_polynomial", "normfactor", "normsys", "histosys", "staterror"}
    workspace = pyhf.Workspace(json.loads(text), validate=False)
    with pyhf_backend():
        pdf = workspace.model(modifier_set=EFT_MODIFIERS, validate=False)
        parameters = pyhf.infer.mle.fit(workspace.data(pdf), pdf)
        estimate = parameters[pdf.config.poi_index]
    assert estimate == pytest.approx(one.fit_with_pyhf(COUNTS).estimate, abs=2e-3)


def test_the_cls_limit_of_a_shape_with_nuisances_is_pyhfs_and_wider():
    asimov = (CONTENTS[:, 0] + BACKGROUND).astype(np.int64)
    known, free = (cls_limit(model(n, (), 0.0, with_rate=True), asimov) for n in ("known", "free"))
    information = np.sum(CONTENTS[:, 1] ** 2 / asimov)
    # CLs of a Gaussian measurement at the reference: 1.96 standard deviations; the Poisson bends it a little
    assert known.observed == pytest.approx(norm.isf(0.025) / np.sqrt(information), rel=0.06)
    slope, mixed = CONTENTS[:, 1], np.sum(CONTENTS[:, 1] * BACKGROUND / asimov)
    profiled = np.sum(slope**2 / asimov) - mixed**2 / np.sum(BACKGROUND**2 / asimov)
    assert free.observed == pytest.approx(norm.isf(0.025) / np.sqrt(profiled), rel=0.06)
    one = model("free", (), 0.0, with_rate=True)
    with pyhf_backend("scipy"):
        pdf = one.pyhf_model(asimov)
        bounds = pdf.config.suggested_bounds()
        bounds[pdf.config.poi_index] = (0.0, 1.0)
        scan = np.linspace(0.5, 1.5, 5) * free.observed
        theirs, _ = pyhf.infer.intervals.upper_limits.linear_grid_scan(
            [*asimov.astype(float), *pdf.config.auxdata], pdf, scan, par_bounds=bounds
        )
    # pyhf's own module interpolates linearly between the points of its scan
    assert free.observed == pytest.approx(float(theirs), rel=0.03)


def test_an_unknown_background_of_a_fifth_is_fitted_from_templates_and_the_interval_covers():
    toy, rng = QuadraticEFT(0.3), np.random.default_rng(50)
    events = toy.sample(rng, 120_000)
    u, _ = toy.amplitudes(events)
    is_background = np.zeros(len(u), dtype=bool)
    is_background[80_000:] = rng.random(40_000) * 4 < 1 + 0.7 * (events[80_000:, 3] - 0.966)
    kept = np.concatenate([np.arange(80_000), np.flatnonzero(is_background)])
    u, is_background, polynomials = u[kept], is_background[kept], toy.polynomials(events[kept])
    learned = np.arange(len(u)) % 2 == 0
    edges = quantile_edges(u[learned & ~is_background], np.ones(int((learned & ~is_background).sum())), 10)
    bins = np.searchsorted(edges[1:-1], u, side="right")
    signal = np.array(
        [np.bincount(bins[learned & ~is_background], p[learned & ~is_background], 10) for p in polynomials.T]
    ).T
    simulated = np.bincount(bins[learned & is_background], minlength=10)
    n_background = 200 * simulated / simulated.sum()
    background_errors = n_background / np.sqrt(simulated)
    templates = {
        normalisation: Templates(
            edges,
            800 * signal / signal[:, 0].sum(),
            1 / np.sqrt(signal[:, 0]),
            BackgroundTemplate(n_background, background_errors, normalisation),
        )
        for normalisation in ("known", "free")
    }
    models = {name: TemplateModel(one, bins, PARAMETER) for name, one in templates.items()}
    ignored = Templates(edges, templates["free"].contents, templates["free"].relative_errors)
    models["ignored"] = TemplateModel(ignored, bins, PARAMETER)
    theta, n = 0.1, 120
    tested = [~learned & ~is_background, ~learned & is_background]
    weights = np.zeros(len(u))
    signal = polynomials[tested[0]] @ theta ** np.arange(5)
    weights[tested[0]], weights[tested[1]] = 0.8 * signal / signal.sum(), 0.2 / tested[1].sum()
    methods = run(models, draw(weights, n, 1000, rng), theta_true=theta).methods
    for name in ("known", "free"):
        # 3 binomial standard deviations of 120 trials
        assert methods[name].covers(theta).mean() == pytest.approx(0.6827, abs=3 * np.sqrt(0.2166 / n))
    width = {name: np.nanmean(one.high - one.low) for name, one in methods.items()}
    # the discriminant alone hardly tells the background from the effect of the coefficient
    assert 1.05 < width["free"] / width["known"] < 4
    assert abs(methods["ignored"].estimate.mean() - theta) > 3 * methods["ignored"].estimate.std() / np.sqrt(
        n
    )


def test_columns_that_make_no_sense_are_refused_by_name():
    with pytest.raises(
        EventWeightError, match="weight_jes_up and _down change the total by factors -1 and 1"
    ):
        TemplateSystematic("jes", -1.0, 1.0, np.ones(2), np.ones(2))
    with pytest.raises(EventWeightError, match=r"weight_jes_up .* a share of -0\.1 of bin 0 of 2"):
        TemplateSystematic.of("jes", np.array([10.0, 10.0]), np.array([-1.0, 21.0]), np.array([13.0, 7.0]))


def test_a_shift_ends_before_a_bin_would_be_negative():
    one = TemplateSystematic.of("jes", np.array([10.0, 10.0]), np.array([6.0, 14.0]), np.array([13.0, 7.0]))
    assert (one.nuisance.low, one.nuisance.high) == pytest.approx((-0.95 / 0.3, 0.95 / 0.4))
    ends = 1 + one.shape_shift(np.array([one.nuisance.low, one.nuisance.high]))
    np.testing.assert_allclose(ends.min(axis=1), 0.05)


def test_templates_with_nuisances_survive_json():
    one = model(0.1).templates
    again = from_plain(Templates, json.loads(json.dumps(to_plain(one), allow_nan=False)))
    theta = np.array([[0.3, 0.5, -0.7, 1.2]])
    expected = TemplateModel(one, np.zeros(1, dtype=np.int64), PARAMETER).expected(theta)
    np.testing.assert_array_equal(
        TemplateModel(again, np.zeros(1, dtype=np.int64), PARAMETER).expected(theta), expected
    )


def test_templates_of_another_luminosity_describe_its_counts():
    luminosity = TemplateSystematic.of_total("luminosity", 1.03, 3)
    background = BackgroundTemplate(BACKGROUND, 0.02 * BACKGROUND, "known", (luminosity,))
    whole = Templates(EDGES, CONTENTS, np.full(3, 0.02), background, (luminosity,))
    part = whole.scaled(0.4)
    parameter = Parameter(name="c")
    models = [
        TemplateModel(one, np.zeros(1, dtype=np.int64), parameter, with_rate=True) for one in (whole, part)
    ]
    point = np.array([[0.3, 0.5]])
    np.testing.assert_allclose(models[1].expected(point), 0.4 * models[0].expected(point), rtol=1e-12)
    np.testing.assert_allclose(models[1]._relative_errors(), models[0]._relative_errors(), rtol=1e-12)
    # 40 % of the events are what is expected at the reference, with the smaller luminosity alone
    counts = np.round(0.4 * models[0].expected(np.zeros((1, 2)))[0]).astype(np.int64)
    assert fit(models[1].observe_counts(counts)).estimate == pytest.approx(0, abs=0.02)
    assert fit(models[0].observe_counts(counts)).minimum > 100
