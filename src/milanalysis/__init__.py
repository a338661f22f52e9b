"""From ROOT files of collider events to a confidence interval on an EFT coefficient.

The rooms, from the ground up: `milanalysis.events` reads ROOT files into tables of features,
`milanalysis.simulation` makes events whose likelihood is known, `milanalysis.learning` turns tables into
likelihood ratios, `milanalysis.statistics` turns likelihood ratios into intervals, and
`milanalysis.reporting` draws them. `milanalysis.pipeline` runs all of it from one YAML file.
"""

from importlib.metadata import version as _version

__all__ = ["__version__"]

__version__ = _version("milanalysis")
