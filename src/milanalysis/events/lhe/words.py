"""Words of Les Houches files: numbers as C, Python and Fortran write them, attributes, any encoding."""

from __future__ import annotations

import html
import math
import re

import numpy as np

from milanalysis.parameters import FloatArray

__all__ = [
    "ATTRIBUTES",
    "MalformedEventError",
    "NotANumberError",
    "attributes_of",
    "decoded",
    "numbers",
    "rounding",
]

ATTRIBUTES = rb"[^<>\"']*(?:(?:\"[^\"<\n]*\"|'[^'<\n]*')[^<>\"']*)*"
"""Attributes of a tag, in which ``>`` may be quoted."""
_LEADING_ATTRIBUTE = re.compile(r"\s*([\w:.-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_MANTISSA = rb"[+-]?(?:\d+\.?\d*|\.\d+)"
_NUMBER = re.compile(_MANTISSA + rb"(?:[eE][+-]?\d+)?|[+-]?(?:[nN][aA][nN]|[iI][nN][fF](?:inity|INITY)?)")
_FORTRAN = re.compile(rb"(" + _MANTISSA + rb")(?:[dDqQ]([+-]?\d+)|([+-]\d{3}))\Z")
"""Exponents after D or Q, and those of three digits, before which Fortran leaves the letter out."""
_LETTERS = bytes.maketrans(b"dDqQ", b"EEEE")
_LONGEST = 32
"""Characters of a word from which it is read by itself; numbers have fewer."""


class MalformedEventError(ValueError):
    """An event is not what it should be.

    Attributes:
        event: its place among the events given.
        offset: where in its text, in bytes.
    """

    def __init__(self, event: int, offset: int, message: str) -> None:
        super().__init__(message)
        self.event = event
        self.offset = max(offset, 0)


class NotANumberError(ValueError):
    """A word of a text is not a number.

    Attributes:
        position: of the word, counting from 0.
        word: as it is in the text.
    """

    def __init__(self, position: int, word: bytes) -> None:
        shown = word[:40].decode("latin-1")
        why = " (a field of Fortran that was too narrow for its number)" if set(word) == {ord("*")} else ""
        super().__init__(f"{shown!r} is not a number{why}")
        self.position = position
        self.word = word


def numbers(text: bytes) -> FloatArray:
    """Return all numbers of a text, correctly rounded: ``1.5``, ``+.5e-3``, ``1D-3``, ``1.2-102``, ``NaN``.

    Args:
        text: words separated by white space.

    Returns:
        One number per word, shape ``(n_words,)``.

    Raises:
        NotANumberError: naming the first word that is not a number.

    Example:
        >>> numbers(b"1D-3 +.5 1.25-102").tolist()
        [0.001, 0.5, 1.25e-102]
    """
    plain = b"_" not in text  # Python reads 1_0 as 10
    words = text.split()
    found = _usual(words) if plain else None
    if found is None and plain:
        found = _usual(text.translate(_LETTERS).split())
    if found is not None:
        return found
    spelled = [_FORTRAN.sub(rb"\1E\2\3", word) for word in words]
    found = _usual(spelled) if plain else None
    if found is not None:
        return found
    for position, word in enumerate(spelled):
        if not _NUMBER.fullmatch(word):
            raise NotANumberError(position, words[position])
    return np.array([float(word) for word in spelled])


def _usual(words: list[bytes]) -> FloatArray | None:
    """Return the numbers that words spell as Python does; None if one does not, or is long."""
    table = np.array(words, dtype=f"S{_LONGEST}")
    if table.view(np.uint8)[_LONGEST - 1 :: _LONGEST].any():
        return None
    try:
        return table.astype(np.float64)
    except ValueError:
        return None


def rounding(word: bytes) -> float:
    """Return half a unit of the last digit a number is written with.

    Example:
        >>> rounding(b"1.02E-03")
        5e-06
    """
    mantissa, _, exponent = _FORTRAN.sub(rb"\1E\2\3", word).lower().partition(b"e")
    decimals = len(mantissa.partition(b".")[2])
    if len(exponent) > _LONGEST:
        return math.inf
    return float(f"5e{int(exponent or 0) - decimals - 1}")


def decoded(text: bytes) -> str:
    """Return text that should be UTF-8, and is Latin-1 if it is not."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def attributes_of(text: str) -> dict[str, str]:
    """Return the attributes of a tag, with or without quotes, by their names in lower case.

    Raises:
        ValueError: if there is anything else.

    Example:
        >>> attributes_of("id='cHW_1' trials=8")
        {'id': 'cHW_1', 'trials': '8'}
    """
    found: dict[str, str] = {}
    rest = text.strip().removesuffix("/")
    while rest.strip():
        match = _LEADING_ATTRIBUTE.match(rest)
        if match is None:
            msg = f"{rest.strip()!r} is not an attribute such as id='name'"
            raise ValueError(msg)
        found[match[1].lower()] = html.unescape(match[2] or match[3] or match[4] or "").strip()
        rest = rest[match.end() :]
    return found
