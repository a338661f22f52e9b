"""Event weights of Les Houches files: their names in the header, and their values in each event.

Three forms are in use: ``<rwgt>`` with ``<wgt id="name"> value </wgt>`` (version 3),
``<weight name="name"> value </weight>`` (version 2), and ``<weights> value value ... </weights>``, whose
names are those of the header in order. Weights without a name are numbered from 0, which is their place in
the file. What looks like a weight and cannot be read is an error, never left out.

Source:
    arXiv:1405.1067 (version 3), arXiv:1003.1643 (version 2).
"""

from __future__ import annotations

import html
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from milanalysis.events.lhe.words import (
    ATTRIBUTES,
    MalformedEventError,
    NotANumberError,
    attributes_of,
    decoded,
    numbers,
)
from milanalysis.parameters import FloatArray

__all__ = ["AnnouncedWeights", "EventWeightReader"]

logger = logging.getLogger(__name__)

_ELEMENT = re.compile(rb"<(?:wgt|weight)\b(" + ATTRIBUTES + rb")>\s*([^\s<>]+)\s*</(?:wgt|weight)\s*>")
_COMPACT = re.compile(rb"<weights\b[^<>]*>([^<>]*)</weights\s*>")
_REWEIGHTING = re.compile(rb"<rwgt\b[^<>]*>(.*?)</rwgt\s*>|<(?:rwgt|weights)\b[^<>]*/>", re.DOTALL)
_HASH = re.compile(rb"#[^\n]*")
_COMMENTED = re.compile(rb"^[^\S\n]*#[^\n]*<[^\n]*", re.MULTILINE)
_NO_WEIGHT = re.compile(rb"[^\n]*?(?:wgt|weight)[^\n]*", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LIST = re.compile(r"<initrwgt\b[^>]*>(.*?)</initrwgt\s*>", re.DOTALL)
_NAMED = re.compile(
    r"<(weightinfo|weight)\b((?:[^>\"']|\"[^\"]*\"|'[^']*')*?)(?:/>|>(.*?)</\1\s*>)", re.DOTALL
)
_OLD_POWHEG = b"#new weight"
_MOST_REMEMBERED = 10_000
_PARTICLE_NUMBERS = 13


@dataclass(frozen=True)
class AnnouncedWeights:
    """Names and descriptions of weights in the head of a file.

    Attributes:
        names: in order, as often as they are there; None for a weight without a name.
        compact: those of ``<weightinfo>``, which belong to ``<weights>`` only.
        descriptions: by name.
    """

    names: tuple[str | None, ...] = ()
    compact: tuple[str | None, ...] = ()
    descriptions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def in_text(cls, head: bytes) -> AnnouncedWeights:
        """Find the names in everything before the first event, escaped (``&lt;weight``) or not."""
        text = decoded(head)
        for _ in range(2):  # some programs escape what is escaped
            text = html.unescape(text) if re.search(r"&(?:amp;)?lt;/?(?:weight|initrwgt)", text) else text
        text = _COMMENT.sub("", text)
        lists = " ".join(dict.fromkeys(_LIST.findall(text))) or text  # a list that is there twice is one list
        names: list[str | None] = []
        compact: list[str | None] = []
        descriptions: dict[str, list[str]] = {}
        weights = [one for one in _NAMED.findall(lists) if one[0] == "weight"]
        for kind, attributes, described in weights + [
            one for one in _NAMED.findall(text) if one[0] != "weight"
        ]:
            try:
                found = attributes_of(attributes)
            except ValueError:
                found = {}
            name = found.get("id") or found.get("name")
            (compact if kind == "weightinfo" else names).append(name)
            if name:
                words = " ".join(html.unescape(described).split())
                if words not in descriptions.setdefault(name, []):
                    descriptions[name].append(words)
        return cls(
            tuple(names), tuple(compact), {name: "; ".join(texts) for name, texts in descriptions.items()}
        )


class EventWeightReader:
    """Reads the weights of events, in the order of the first event.

    Attributes:
        names: of the weights in that order; None before the first event.
        numbered: whether some of them have no name in the file.
    """

    def __init__(self, announced: AnnouncedWeights) -> None:
        self.names: tuple[str, ...] | None = None
        self.numbered = False
        self._announced = announced
        self._tags: list[bytes] = []
        self._n_compact = 0
        self._name_of: dict[bytes, str | None] = {}
        self._harmless: set[bytes] = {b""}
        self._warned = False

    def read(self, rests: Sequence[bytes]) -> FloatArray:
        """Return the weights beside the nominal one.

        Args:
            rests: text of each event after its particles.

        Returns:
            Weights, shape ``(n_events, n_weights)``.

        Raises:
            MalformedEventError: if a weight cannot be read, has another name in another event, or is there
                twice.
        """
        words: list[bytes] = []
        for i, rest in enumerate(rests):
            parts = _ELEMENT.split(
                _COMMENTED.sub(b"", rest) if b"#" in rest else rest
            )  # what is between, attributes, value, what is between, ...
            tags, values = parts[1::3], parts[2::3]
            between = b"".join(parts[::3])
            n_compact = 0
            if between not in self._harmless:
                compact = b" ".join(_COMPACT.findall(between)).split()
                n_compact = len(compact)
                values += compact
                self._check_rest(i, rest, between)
            if self.names is None or tags != self._tags or n_compact != self._n_compact:
                values = self._in_order(i, rest, tags, n_compact, values)
            words += values
        n_weights = len(self.names or ())
        try:
            table = numbers(b" ".join(words))
        except NotANumberError as error:
            event, place = divmod(error.position, n_weights)
            name = (self.names or ())[place]
            raise MalformedEventError(
                event, rests[event].find(error.word), f"weight {name!r}: {error}"
            ) from error
        return table.reshape(len(rests), n_weights)

    def _in_order(
        self, event: int, rest: bytes, tags: list[bytes], n_compact: int, values: list[bytes]
    ) -> list[bytes]:
        """Return the values in the order of the first event, which this one may be."""
        names = self._names(event, rest, tags, n_compact)
        if self.names is None:
            self.names, self._tags, self._n_compact = tuple(names), tags, n_compact
        if sorted(names) != sorted(self.names):
            raise MalformedEventError(
                event,
                0,
                f"it has {len(names)} weights ({_listed(names)}) and the events before have "
                f"{len(self.names)} ({_listed(self.names)}); expected the same weights in all events",
            )
        by_name = dict(zip(names, values, strict=True))
        return [by_name[name] for name in self.names]

    def _names(self, event: int, rest: bytes, tags: list[bytes], n_compact: int) -> list[str]:
        """Return the names of the weights of an event."""
        found: list[str | None] = []
        for tag in tags:
            if tag not in self._name_of:
                try:
                    attributes = attributes_of(decoded(tag))
                except ValueError as error:
                    raise MalformedEventError(
                        event, rest.find(tag), f"the name of a weight: {error}"
                    ) from error
                self._name_of[tag] = attributes.get("id") or attributes.get("name")
            found.append(self._name_of[tag])
        if n_compact:
            known = self._announced.compact or (() if tags else self._announced.names)
            if known and len(known) != n_compact:
                raise MalformedEventError(
                    event,
                    rest.find(b"<weights"),
                    f"the header names {len(known)} weights ({_listed([str(one) for one in known])}) and the "
                    f"event has {n_compact} in <weights>, so that it is not known which is which; complete "
                    "the names in <initrwgt>, or take them out to have the weights numbered",
                )
            found += known or [None] * n_compact
        names = [str(place) if name is None else name for place, name in enumerate(found)]
        self.numbered = self.numbered or None in found
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise MalformedEventError(
                event,
                rest.rfind(twice[0].encode()),
                f"there are {names.count(twice[0])} weights of the name {twice[0]!r}; expected a name for "
                "each",
            )
        return names

    def _check_rest(self, event: int, rest: bytes, between: bytes) -> None:
        """Refuse what is in an event beside weights and is a weight or a particle all the same."""
        if _OLD_POWHEG in between and not self._warned:
            logger.warning("weights in comments ('#new weight', as POWHEG once wrote them) are left out")
            self._warned = True
        text = _COMPACT.sub(b"", _HASH.sub(b"", between))
        stray = b"\n".join(_REWEIGHTING.findall(text)).strip() or b"\n".join(
            _NO_WEIGHT.findall(_REWEIGHTING.sub(b"", text))
        )
        if stray.strip():
            shown = stray.strip().split(b"\n")[0].strip()
            line = next((one for one in rest.split(b"\n") if shown in one), shown).strip()
            raise MalformedEventError(
                event,
                rest.find(shown),
                f"{decoded(line[:100])!r} is no weight that can be read; expected <wgt id='name'> number "
                "</wgt>",
            )
        for line in text.split(b"\n"):
            if b"<" not in line and len(line.split()) == _PARTICLE_NUMBERS:
                raise MalformedEventError(
                    event, rest.find(line), "there are more particles than the first line of the event says"
                )
        if len(self._harmless) < _MOST_REMEMBERED and not _COMPACT.search(between):
            self._harmless.add(between)


def _listed(names: Sequence[str]) -> str:
    """Return the first names as text."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
