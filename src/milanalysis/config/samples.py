"""The part of the configuration that says where events come from and how they are read.

Samples are generated or given as files; files have a format, which names their collections; an executor runs
over them. `milanalysis.config` puts these into the analysis.
"""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from milanalysis.config.physics import STRICT, Count, Name, Positive
from milanalysis.files.paths import matching_files, refuse_address

__all__ = [
    "DaskExecutorConfig",
    "DelphesFormatConfig",
    "ExecutorConfig",
    "FileSampleConfig",
    "FormatConfig",
    "FuturesExecutorConfig",
    "GenerateBackgroundConfig",
    "GenerateSampleConfig",
    "GivenPath",
    "IterativeExecutorConfig",
    "LHEFFormatConfig",
    "Normalisation",
    "ParslExecutorConfig",
    "ProcessingConfig",
    "SampleConfig",
    "WeightPairConfig",
    "own_processors",
]


GivenPath = Annotated[Path, BeforeValidator(refuse_address)]
"""A file on a local disk; ``~`` and variables are expanded, relative paths start at the configuration."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LHEFFormatConfig:
    """A tree of ExRootLHEFConverter, of ``milanalysis convert``, or of the built-in generator."""

    kind: Literal["lhef"] = "lhef"
    tree: str = "LHEF"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DelphesFormatConfig:
    """A tree of Delphes, with the names its card gives to the collections.

    The defaults are those of the CMS and ATLAS cards. A card with PUPPI has, for example, ``jets: JetPUPPI``
    and
    ``missing: PuppiMissingET``, and perhaps ``muons: MuonTight``; ``null`` leaves electrons or muons out. The
        weights
    of ``weights`` begin with the nominal one unless ``leading_nominal`` is false (as in ``WeightLHEF``).
    """

    kind: Literal["delphes"] = "delphes"
    tree: str = "Delphes"
    electrons: str | None = "Electron"
    muons: str | None = "Muon"
    jets: str = "Jet"
    missing: str = "MissingET"
    weights: str = "Weight"
    leading_nominal: bool = True

    @model_validator(mode="after")
    def _there_are_leptons(self) -> DelphesFormatConfig:
        if self.electrons is None and self.muons is None:
            msg = "name the collection of electrons, of muons, or both"
            raise ValueError(msg)
        return self


FormatConfig = Annotated[LHEFFormatConfig | DelphesFormatConfig, Field(discriminator="kind")]

Normalisation = Literal["mean", "sum", "file_sum", "unit"]
"""What the nominal weights of a sample add up to.

``mean``: their mean is the cross-section in pb. ``sum``: those of all files together add up to it.
    ``file_sum``: those
of each file add up to it. ``unit``: they are 1 (or 1 on average), and ``cross_section_fb`` says what that
stands for.
"""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerateSampleConfig:
    """A sample made by the built-in generator.

    ``weight_points`` are the values of the parameter at which event weights are stored beside the nominal
    one; four besides the nominal value fix the quartic polynomial, and more of them, not placed
    symmetrically, let a wrong order of the points be noticed.
    """

    kind: Literal["generate"] = "generate"
    role: Literal["simulation", "observed"]
    theta: float
    events: Count
    weight_points: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.2, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerateBackgroundConfig:
    """Electroweak u d > u d Z Z, Z > e+ e-, Z > nu nu~, made by the built-in generator.

    It does not depend on the parameter: event weights are the same at all points. ``role: observed`` mixes it
    into the data; ``role: background`` makes its events and its table and leaves them out of the measurement.
    """

    kind: Literal["generate_zz"] = "generate_zz"
    role: Literal["background", "observed"]
    events: Count

    @property
    def theta(self) -> float:
        """Parameter point of the nominal weight."""
        return 0.0

    @property
    def weight_points(self) -> tuple[float, ...]:
        """Points at which event weights are stored."""
        return (-1.0, -0.5, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WeightPairConfig:
    """The weights of a file that stand for a shift up and down: by name, or by index counting from 0.

    The nominal weight does not count. Names are those of ``weight_names``.
    """

    up: Annotated[int, Field(ge=0)] | str
    down: Annotated[int, Field(ge=0)] | str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileSampleConfig:
    """A sample read from ROOT files.

    ``files`` are on local disks, and may hold patterns such as ``run_*/events.root`` (what exists under just
    this name is no pattern). No event may be there twice, in one sample or in two: neither a file under two
    names nor the same events in two files. ``theta`` is the value of the parameter that the nominal weight
    belongs to. ``weight_points`` say what the other weights belong to: a list of values in the order of the
    file (``null`` for a weight that is none of them, such as a scale variation), or values by name, where the
    names are in the JSON file beside each ROOT file (written by ``milanalysis convert``) or in
    ``weight_names``. A sample without weight points has one value of the parameter and no event weights.
    ``weight_variations`` names, for each systematic uncertainty, the weights of a shift by one standard
    deviation up and down. ``cross_section_fb`` is checked against the weights, and so is the cross-section in
    a JSON file beside a ROOT file (or beside what it is a link to), unless that is null, zero, or
    negative: not known. Each event with ``role: observed`` counts as one, so that their weights have to be
        equal. ``degree``
    is that of the polynomial in the parameter that event weights lie on: 4 where production and decay both
    depend on it, 2 where one amplitude does. As many weight points beside the nominal weight fix it, and more
    of them test it. Negative nominal weights keep their signs in tables, cutflows and yields, and are refused
    by `train` and what follows: bags and pseudo-experiments are drawn in proportion to the weights.
    """

    kind: Literal["files"] = "files"
    role: Literal["simulation", "observed", "background"]
    files: Annotated[tuple[GivenPath, ...], Field(min_length=1)]
    format: FormatConfig = LHEFFormatConfig()
    theta: float | None = None
    weight_points: tuple[float | None, ...] | dict[str, float] = ()
    weight_variations: dict[Name, WeightPairConfig] = field(default_factory=dict)
    weight_names: GivenPath | None = None
    normalisation: Normalisation = "mean"
    cross_section_fb: Positive | None = None
    degree: Annotated[int, Field(ge=1, le=4)] = 4

    @model_validator(mode="after")
    def _unit_weights_have_a_unit(self) -> FileSampleConfig:
        if self.normalisation == "unit" and self.cross_section_fb is None:
            msg = (
                "normalisation: unit needs cross_section_fb, since the weights do not say what they stand for"
            )
            raise ValueError(msg)
        return self

    def paths(self) -> tuple[Path, ...]:
        """Return the files, patterns replaced by what they match, in alphabetical order.

        Raises:
            InputFileError: if a pattern matches nothing.
        """
        return tuple(found for path in self.files for found in matching_files(path))


SampleConfig = Annotated[
    GenerateSampleConfig | GenerateBackgroundConfig | FileSampleConfig, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IterativeExecutorConfig:
    """One chunk after the other, in this process."""

    kind: Literal["iterative"] = "iterative"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FuturesExecutorConfig:
    """Chunks in local processes that stay warm between runs."""

    kind: Literal["futures"] = "futures"
    workers: Count = 2


def _address(text: str) -> str:
    """Accept addresses of dask schedulers: a host and a port."""
    if not re.fullmatch(r"(?:(?:tcp|tls|ucx|ws|wss)://)?(?:\[[\da-fA-F:.]+\]|[^\s:/]+):\d{1,5}", text):
        msg = f"{text!r} is no address of a dask scheduler; give it as `dask scheduler` says it (tcp://host:port)"
        raise ValueError(msg)
    return text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DaskExecutorConfig:
    """Chunks on a dask cluster: the one of ``scheduler`` (``tcp://host:port``), or local processes.

    Workers need milanalysis installed, and see the same files under the same paths.
    """

    kind: Literal["dask"] = "dask"
    workers: Count = 2
    scheduler: Annotated[str, AfterValidator(_address)] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParslExecutorConfig:
    """Chunks in processes that parsl starts on this machine."""

    kind: Literal["parsl"] = "parsl"
    workers: Count = 2


ExecutorConfig = IterativeExecutorConfig | FuturesExecutorConfig | DaskExecutorConfig | ParslExecutorConfig


def shipped_processor(name: str) -> Path:
    """Return the path of a processor that comes with milanalysis: installed, or in the source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "processors" / name
    return installed if installed.is_file() else package.parents[1] / "processors" / name


def own_processors(base: Path) -> dict[str, Path]:
    """Return the processors of an analyst's project, by their key under ``processing``.

    They are called as those that come with milanalysis, and are in ``processors/`` in the directory of the
    YAML file or beside that directory.

    Args:
        base: directory of the YAML file.
    """
    found = {}
    for key in ("features", "bag_likelihood"):
        places = (base / "processors" / f"{key}.py", base.parent / "processors" / f"{key}.py")
        existing = [place for place in places if place.is_file()]
        if existing:
            found[key] = existing[0]
    return found


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProcessingConfig:
    """Where the coffea processors are and how they are run.

    Where ``features`` or ``bag_likelihood`` is not given, ``processors/features.py`` or
    ``processors/bag_likelihood.py`` in the directory of the YAML file, or beside that directory, is used, and
    without such a file the one that comes with milanalysis. Chunks have at most ``chunk_size`` events and
    begin at multiples of ``chunk_multiple`` events of their file (a bag size, where bags shall not be cut).
    ``on_bad_file: skip`` leaves out files that cannot be read and says so.
    """

    features: GivenPath = field(default_factory=lambda: shipped_processor("features.py"))
    bag_likelihood: GivenPath = field(default_factory=lambda: shipped_processor("bag_likelihood.py"))
    executor: Annotated[ExecutorConfig, Field(discriminator="kind")] = FuturesExecutorConfig()
    chunk_size: Count = 100_000
    chunk_multiple: Count = 1
    on_bad_file: Literal["fail", "skip"] = "fail"

    @model_validator(mode="after")
    def _chunks_can_begin(self) -> ProcessingConfig:
        if self.chunk_multiple > self.chunk_size:
            msg = (
                f"chunk_multiple: chunks of at most {self.chunk_size} events (chunk_size) cannot begin at "
                f"multiples of {self.chunk_multiple}; enlarge chunk_size"
            )
            raise ValueError(msg)
        return self
