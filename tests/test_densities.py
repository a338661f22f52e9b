"""The built-in fit, and grids in LHAPDF format through the optional package parton."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from milanalysis.config import FitPDFConfig, LHAPDFConfig
from milanalysis.errors import ConfigError, InputFileError
from milanalysis.simulation.densities import ClosedFormDensities, make_densities


def _write_grid(directory: Path, name: str = "Tiny", q_min: float = 10.0) -> None:
    """Write the closed form, the same at every scale, as a grid in LHAPDF 6 format."""
    fit = ClosedFormDensities()
    x = np.geomspace(1e-7, 1.0, 400)
    inner = np.minimum(x, 1.0 - 1e-9)
    q = np.geomspace(q_min, 10 * q_min, 5)
    values = np.repeat(np.stack([fit.down(inner), fit.up(inner), 0 * x], axis=1), len(q), axis=0)
    folder = directory / name
    folder.mkdir(parents=True)
    (folder / f"{name}.info").write_text("SetDesc: test\nSetIndex: 4711\nNumMembers: 1\nFormat: lhagrid1\n")
    lines = ["PdfType: central", "Format: lhagrid1", "---"]
    lines += [" ".join(f"{value:.9e}" for value in row) for row in (x, q)]
    lines += ["1 2 21", *(" ".join(f"{value:.9e}" for value in row) for row in values), "---", ""]
    (folder / f"{name}_0000.dat").write_text("\n".join(lines))


def test_fit_has_the_values_of_the_fitted_set() -> None:
    densities = make_densities(FitPDFConfig())
    x = np.array([0.01, 0.1, 0.3])
    np.testing.assert_allclose(densities.up(x), [0.7368, 0.5913, 0.3359], rtol=5e-3)
    np.testing.assert_allclose(densities.down(x), [0.6483, 0.3605, 0.1382], rtol=2e-3)
    assert densities.lhapdf_id == 247000


def test_a_grid_gives_the_densities_it_holds(tmp_path: Path) -> None:
    _write_grid(tmp_path)
    densities = make_densities(LHAPDFConfig(name="Tiny", directory=tmp_path))
    x = np.geomspace(2e-4, 0.8, 50)
    fit = ClosedFormDensities()
    # Cubic splines between 400 points, then linear interpolation between 6000.
    np.testing.assert_allclose(densities.up(x), fit.up(x), rtol=5e-4)
    np.testing.assert_allclose(densities.down(x), fit.down(x), rtol=5e-4)
    assert (densities.lhapdf_id, densities.scale) == (4711, 80.387)


def test_a_missing_grid_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"Absent\.info does not exist"):
        make_densities(LHAPDFConfig(name="Absent", directory=tmp_path))


def test_a_scale_outside_the_grid_is_refused(tmp_path: Path) -> None:
    _write_grid(tmp_path, q_min=1000.0)
    with pytest.raises(InputFileError, match=r"80\.387"):
        make_densities(LHAPDFConfig(name="Tiny", directory=tmp_path))


def test_a_damaged_grid_is_refused(tmp_path: Path) -> None:
    _write_grid(tmp_path)
    (tmp_path / "Tiny" / "Tiny_0000.dat").write_text("PdfType: central\n---\nnot numbers\n")
    with pytest.raises(InputFileError, match="LHAPDF 6"):
        make_densities(LHAPDFConfig(name="Tiny", directory=tmp_path))


def test_a_grid_needs_the_package_parton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "parton", None)
    with pytest.raises(ConfigError, match="pip install"):
        make_densities(LHAPDFConfig(name="Tiny", directory=tmp_path))
