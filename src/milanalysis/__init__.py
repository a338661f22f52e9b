"""From ROOT files of collider events to a confidence interval on an EFT coefficient.

A notebook needs one import::

    import milanalysis as mil

    run = mil.open_run("runs/quickstart")  # or mil.run("analysis.yaml")
    shape = run.likelihood("polynomial")  # iminuit.Minuit takes it as it is
    fit = mil.interval(shape + run.rate(), level=0.68)
    mil.plotting.profile(shape, fit)

The names below are loaded when they are used. Behind them are rooms, from the ground up: `milanalysis.events`
reads ROOT and LHE files into tables of features, `milanalysis.simulation` makes events whose likelihood is
known, `milanalysis.ratios` is what `milanalysis.learning` (tables to likelihood ratios) and
`milanalysis.statistics` (likelihood ratios to intervals) share, `milanalysis.reporting` draws, and
`milanalysis.pipeline` runs all of it from one YAML file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; nothing is loaded before it is used
    from milanalysis.config import AnalysisConfig as AnalysisConfig
    from milanalysis.config import load_config as load_config
    from milanalysis.errors import MilAnalysisError as MilAnalysisError
    from milanalysis.events.lhe.conversion import convert_lhe as convert_lhe
    from milanalysis.events.tables import EventTable as EventTable
    from milanalysis.events.tables import Split as Split
    from milanalysis.learning.models.stored import load_model as load_model
    from milanalysis.parameters import EFTPolynomial as EFTPolynomial
    from milanalysis.parameters import EventPolynomials as EventPolynomials
    from milanalysis.parameters import Parameter as Parameter
    from milanalysis.pipeline.analysis_run import AnalysisRun as AnalysisRun
    from milanalysis.pipeline.analysis_run import open_run as open_run
    from milanalysis.pipeline.analysis_run import run as run
    from milanalysis.ratios.bags import Bags as Bags
    from milanalysis.ratios.bags import partition as partition
    from milanalysis.ratios.exact import ExactRatio as ExactRatio
    from milanalysis.ratios.likelihood_ratio import LikelihoodRatio as LikelihoodRatio
    from milanalysis.ratios.terms import GridTerms as GridTerms
    from milanalysis.ratios.terms import PolynomialTerms as PolynomialTerms
    from milanalysis.reporting import plotting as plotting
    from milanalysis.statistics.inference import feldman_cousins as feldman_cousins
    from milanalysis.statistics.inference.fits import contour as contour
    from milanalysis.statistics.inference.fits import fit as fit
    from milanalysis.statistics.inference.fits import interval as interval
    from milanalysis.statistics.inference.fits import limit as limit
    from milanalysis.statistics.inference.fits import minuit as minuit
    from milanalysis.statistics.inference.fits import profile as profile
    from milanalysis.statistics.likelihood.constraints import GaussianConstraint as GaussianConstraint
    from milanalysis.statistics.likelihood.constraints import LogNormalConstraint as LogNormalConstraint
    from milanalysis.statistics.likelihood.interpolation import NaturalSpline as NaturalSpline
    from milanalysis.statistics.likelihood.interpolation import ParabolaWindow as ParabolaWindow
    from milanalysis.statistics.likelihood.interpolation import PolynomialFit as PolynomialFit
    from milanalysis.statistics.likelihood.models import RateModel as RateModel
    from milanalysis.statistics.likelihood.models import ShapeModel as ShapeModel
    from milanalysis.statistics.likelihood.profile_likelihood import ProfileLikelihood as ProfileLikelihood

_HOME = {
    # an analysis, as the command line runs it
    "run": "pipeline.analysis_run",
    "open_run": "pipeline.analysis_run",
    "AnalysisRun": "pipeline.analysis_run",
    "AnalysisConfig": "config",
    "load_config": "config",
    "convert_lhe": "events.lhe.conversion",
    # events and parameters
    "EventTable": "events.tables",
    "Split": "events.tables",
    "Parameter": "parameters",
    "EFTPolynomial": "parameters",
    "EventPolynomials": "parameters",
    # likelihood ratios
    "Bags": "ratios.bags",
    "partition": "ratios.bags",
    "LikelihoodRatio": "ratios.likelihood_ratio",
    "GridTerms": "ratios.terms",
    "PolynomialTerms": "ratios.terms",
    "ExactRatio": "ratios.exact",
    "load_model": "learning.models.stored",
    # likelihoods
    "ProfileLikelihood": "statistics.likelihood.profile_likelihood",
    "ShapeModel": "statistics.likelihood.models",
    "RateModel": "statistics.likelihood.models",
    "GaussianConstraint": "statistics.likelihood.constraints",
    "LogNormalConstraint": "statistics.likelihood.constraints",
    "ParabolaWindow": "statistics.likelihood.interpolation",
    "NaturalSpline": "statistics.likelihood.interpolation",
    "PolynomialFit": "statistics.likelihood.interpolation",
    # fits and intervals
    "minuit": "statistics.inference.fits",
    "fit": "statistics.inference.fits",
    "interval": "statistics.inference.fits",
    "limit": "statistics.inference.fits",
    "profile": "statistics.inference.fits",
    "contour": "statistics.inference.fits",
    "feldman_cousins": "statistics.inference",
    # figures and errors
    "plotting": "reporting",
    "MilAnalysisError": "errors",
}
"""Where each public name lives; modules are public by themselves."""

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 (strings all of them)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("milanalysis")
    elif name in _HOME:
        home = f"{__name__}.{_HOME[name]}"
        if name in ("plotting", "feldman_cousins"):
            found = import_module(f"{home}.{name}")
        else:
            found = getattr(import_module(home), name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}; its names are {', '.join(__all__)}"
        raise AttributeError(msg)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
