"""The physics part of an analysis as written down: beams, cuts, parton densities, and the exact answer.

Used through `milanalysis.config`, where the rest of the configuration is and its rules are stated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.parameters import plain_name

__all__ = [
    "STRICT",
    "Count",
    "CutsConfig",
    "ExactConfig",
    "FitPDFConfig",
    "Fraction",
    "GeneratorConfig",
    "LHAPDFConfig",
    "LeptonCutsConfig",
    "Name",
    "NonNegative",
    "Positive",
    "SplitConfig",
    "TruthConfig",
]

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


Name = Annotated[str, AfterValidator(plain_name)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LeptonCutsConfig:
    """Generator cuts on the charged leptons (not applied by MadGraph to decay products)."""

    pt_min: NonNegative = 10.0
    eta_max: Positive = 2.5
    delta_r_min: NonNegative = 0.4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CutsConfig:
    """Generator cuts; ``leptons: null`` (the default) leaves the leptons alone, as MadGraph does."""

    quark_pt_min: Positive = 20.0
    quark_eta_max: Positive = 5.0
    quark_delta_r_min: NonNegative = 0.4
    leptons: LeptonCutsConfig | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FitPDFConfig:
    """Closed-form fit to NNPDF2.3 LO (alpha_s 0.130) at the scale of the W mass."""

    kind: Literal["fit"] = "fit"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LHAPDFConfig:
    """A grid in LHAPDF 6 format, read with the optional package ``parton``."""

    kind: Literal["lhapdf"] = "lhapdf"
    name: str
    directory: Path
    member: Annotated[int, Field(ge=0)] = 0
    scale: Positive = 80.387


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GeneratorConfig:
    """The built-in generator of u d > u d h, h > e+ ve e- ve~ in W-boson fusion."""

    beam_energy: Positive = 6500.0
    u_beam: Literal["both", "first"] = "both"
    cuts: CutsConfig = CutsConfig()
    pdf: Annotated[FitPDFConfig | LHAPDFConfig, Field(discriminator="kind")] = FitPDFConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExactConfig:
    """The exact likelihood of what is visible, as one of the methods (not in the paper).

    ``visible: automatic`` has it wherever the events are of the process of the built-in generator at parton
        level, and
    says why not otherwise; ``required`` makes that an error; ``never`` does without. Beam energy, parton
    densities and what is known about the beam of the u quark are those of ``generator``. ``accuracy`` names a
    preset of `milanalysis.simulation.exact.visible_ratio`.
    """

    visible: Literal["automatic", "required", "never"] = "automatic"
    accuracy: Literal["fast", "standard", "fine"] = "standard"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TruthConfig:
    """The reference information that ``milanalysis truth`` computes (not in the paper).

    ``auc_at`` are values of the parameter that the best possible single-event test is to tell from the
    reference; null takes 0.1 and 0.2 above it.
    ``points`` is the number of phase-space points: a million fix the information to about 0.35 %, five
    million to 0.15 %, with cuts on leptons to 0.2 %; a million take about 10 seconds of one core.
    ``in_run: automatic`` makes it a stage of ``milanalysis run`` where the simulation is that of the built-in
        generator and the comparison of methods is made at the
    reference; ``never`` leaves it out, and the comparison takes the information from the test events, which
    know it less well.
    """

    auc_at: tuple[float, ...] | None = None
    points: Annotated[int, Field(ge=100_000)] = 1_000_000
    in_run: Literal["automatic", "never"] = "automatic"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplitConfig:
    """Fractions of the simulated events, decided event by event before anything is learned."""

    train: Fraction = 0.64
    validation: Fraction = 0.16
    test: Fraction = 0.20

    @model_validator(mode="after")
    def _fractions_add_up(self) -> SplitConfig:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            msg = f"train, validation and test have to add up to 1, not {total:g}"
            raise ValueError(msg)
        return self
