"""How numbers are printed with their errors: the same everywhere, with the digits the error allows."""

from __future__ import annotations

import math

__all__ = ["in_brackets", "plus_minus"]


_HOPELESS = 10.0
"""Size of an error, relative to its number or to 1, from which the number says nothing and is not printed."""


def in_brackets(
    value: float | None, error: float | None, *, sign: bool = False, most_decimals: int = 4
) -> str:
    """Return a number with its error in brackets, in units of the last digit: ``0.990(12)``.

    The error has two digits below 3.55 of its leading power of ten, and one above, as in the Review of
    Particle Physics, but no more decimals than a column has room for; an error that is smaller is left out.

    Args:
        value: None where it is not known; a dash stands for it, and for one whose error is ten times as
            large.
        error: standard error; None where it is not known, and 0 for what is exact.
        sign: whether to write a plus sign.
        most_decimals: largest number of decimals.

    Example:
        >>> in_brackets(0.99034, 0.0123), in_brackets(0.0041, 0.0062, sign=True), in_brackets(291.83, 14.4)
        ('0.990(12)', '+0.004(6)', '292(14)')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if error is not None and error > _HOPELESS * max(1.0, abs(value)):
        return "-"
    plus = "+" if sign else ""
    if error is None or not math.isfinite(error) or error < 1e-9:
        return f"{value:{plus}.3f}"
    decimals = min(_decimals(error), most_decimals)
    if decimals > 0:
        digits = round(error * 10**decimals)
        return f"{value:{plus}.{decimals}f}" + (f"({digits})" if digits else "")
    return f"{round(value, decimals) + 0.0:{plus}.0f}({round(error, decimals):.0f})"


def plus_minus(value: float, error: float) -> str:
    """Return a number with its error in units of its own: ``291.8 ± 0.4``.

    Example:
        >>> plus_minus(291.83, 0.42), plus_minus(306.94, 14.4)
        ('291.8 ± 0.4', '307 ± 14')
    """
    if not math.isfinite(error) or error < 1e-9:
        return f"{value:.4g}"
    decimals = _decimals(error)
    shown = max(decimals, 0)
    return f"{round(value, decimals):.{shown}f} ± {round(error, decimals):.{shown}f}"


def _decimals(error: float) -> int:
    """Return how many decimals an error allows."""
    power = math.floor(math.log10(error))
    leading = error / 10**power
    if leading >= 9.5:
        return -power  # rounded up to the next power, with two digits
    return 1 - power if leading < 3.55 else -power
