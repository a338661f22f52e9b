"""A pyhf modifier for EFT: the content of every bin is a polynomial in one Wilson coefficient.

pyhf's own modifiers multiply or add; none is a polynomial of its parameter. `EFT_MODIFIERS` is pyhf's set
with ``eft_polynomial`` added, for ``pyhf.Model(..., modifier_set=EFT_MODIFIERS, validate=False)`` (the schema
of pyhf 0.7 knows no other modifiers than its own). In a specification it reads::

    {"name": "cHW", "type": "eft_polynomial", "data": {"coefficients": [[1.0, 0.3, 0.1, 0.0, 0.0], ...]}}

with ascending coefficients for each bin; the content of the bin is its nominal content times the polynomial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyhf import events, get_backend
from pyhf.exceptions import InvalidModifier
from pyhf.modifiers import histfactory_set
from pyhf.parameters import ParamViewer

__all__ = ["EFT_MODIFIERS", "PolynomialApplier", "PolynomialBuilder"]


class PolynomialBuilder:
    """Collects the coefficients of all bins from a specification; pyhf calls its methods in order."""

    is_shared = True  # samples and channels may depend on the same coefficient

    def __init__(self, config: Any) -> None:
        self.config = config
        self.builder_data: dict[str, dict[str, list[list[float]]]] = {}
        self.required_parsets: dict[str, list[dict[str, Any]]] = {}

    def append(
        self,
        key: str,
        channel: str,
        sample: str,
        thismod: Mapping[str, Any] | None,
        defined_samp: Mapping[str, Any] | None,
    ) -> None:
        """Add one sample in one channel; what is not affected by the modifier gets the polynomial 1."""
        n_bins = self.config.channel_nbins[channel]
        coefficients: list[list[float]] = [[1.0]] * n_bins
        if thismod and defined_samp:
            coefficients = [list(one) for one in thismod["data"]["coefficients"]]
            if len(coefficients) != n_bins:
                msg = (
                    f"modifier {key} has coefficients for {len(coefficients)} bins and sample {sample!r} in "
                    f"channel {channel!r} has {n_bins} bins"
                )
                raise InvalidModifier(msg)
            self.required_parsets.setdefault(thismod["name"], [_parameter_set()])
        self.builder_data.setdefault(key, {}).setdefault(sample, []).extend(coefficients)

    def finalize(self) -> dict[str, dict[str, list[list[float]]]]:
        """Return the coefficients by modifier and sample."""
        return self.builder_data


class PolynomialApplier:
    """Evaluates the polynomials of all bins."""

    name = "eft_polynomial"
    op_code = "multiplication"

    def __init__(
        self,
        modifiers: Sequence[tuple[str, str]],
        pdfconfig: Any,
        builder_data: Mapping[str, Mapping[str, list[list[float]]]],
        batch_size: int | None = None,
    ) -> None:
        self.batch_size = batch_size
        shape = (batch_size, pdfconfig.npars) if batch_size else (pdfconfig.npars,)
        self.param_viewer = ParamViewer(shape, pdfconfig.par_map, [name for name, _ in modifiers])
        keys = [f"{kind}/{name}" for name, kind in modifiers]
        bins = [[builder_data[key][sample] for sample in pdfconfig.samples] for key in keys]
        degree = max((len(one) for key in bins for sample in key for one in sample), default=1) - 1
        # (degree + 1, n_modifiers, n_samples, 1, n_bins)
        self._coefficients = [
            [
                [[[one[k] if k < len(one) else 0.0 for one in sample]] for sample in modifier]
                for modifier in bins
            ]
            for k in range(degree + 1)
        ]
        self._precompute()
        events.subscribe("tensorlib_changed")(self._precompute)

    def _precompute(self) -> None:
        """Bring the coefficients into the form of pyhf's current backend."""
        if self.param_viewer.index_selection:
            tensorlib, _ = get_backend()
            self.coefficients = [tensorlib.astensor(one) for one in self._coefficients]

    def apply(self, pars: Any) -> Any:
        """Return the factors on the bins, shape ``(n_modifiers, n_samples, batch_size or 1, n_bins)``."""
        if not self.param_viewer.index_selection:
            return None
        tensorlib, _ = get_backend()
        values = self.param_viewer.get(pars)  # (n_modifiers,) or (n_modifiers, batch_size)
        values = tensorlib.reshape(
            values, (len(self.param_viewer.index_selection), 1, self.batch_size or 1, 1)
        )
        *lower, highest = self.coefficients
        factor = highest + 0 * values  # broadcast over the batch also for a polynomial of degree 0
        for coefficient in reversed(lower):
            factor = factor * values + coefficient
        return factor


def _parameter_set() -> dict[str, Any]:
    """Return pyhf's description of an unconstrained parameter; most specifications give their own bounds."""
    return {
        "paramset_type": "unconstrained",
        "n_parameters": 1,
        "is_scalar": True,
        "inits": (0.0,),
        "bounds": ((-10.0, 10.0),),
        "fixed": False,
    }


EFT_MODIFIERS = {**histfactory_set, PolynomialApplier.name: (PolynomialBuilder, PolynomialApplier)}
