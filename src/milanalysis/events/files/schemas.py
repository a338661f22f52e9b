"""How coffea sees a ROOT tree: ``LHEF`` trees and Delphes trees, each with the names of their branches.

`LHEFSchema` reads the ``LHEF`` trees of ExRootLHEFConverter and those that milanalysis writes;
`DelphesSchema` reads the trees of Delphes, with whatever collections its card has. Both read only the
branches that are used. coffea's own ``DelphesSchema`` is not used, since its ``MissingET.pt`` is
``MET * cosh(Eta)``: here ``MissingET`` has the fields ``MET`` and ``Phi`` and no others that look like them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from coffea.nanoevents import transforms
from coffea.nanoevents.methods import base, vector
from coffea.nanoevents.schemas.base import BaseSchema, zip_forms

__all__ = ["DelphesSchema", "ExRootSchema", "LHEFSchema"]

_BEHAVIOR: dict[Any, Any] = {**base.behavior, **vector.behavior}
_BOOKKEEPING = (".fUniqueID", ".fBits")  # of ROOT's TObject; not always readable, never of interest


class ExRootSchema(BaseSchema):
    """Reads trees of ExRootAnalysis: every collection ``X`` is a list, and ``Event`` one record per event.

    Every collection ``X`` that has a counter branch ``X_size`` is found, whether its members are called
    ``X/X.member`` or ``X.member``.
    """

    mixins: ClassVar[dict[str, str]] = {}
    renamed: ClassVar[dict[str, dict[str, str]]] = {}
    copied: ClassVar[dict[str, dict[str, str]]] = {}
    singletons: ClassVar[tuple[str, ...]] = ("Event",)

    def __init__(self, base_form: dict[str, Any], version: str = "latest", **_: Any) -> None:
        super().__init__(base_form)
        branches = dict(zip(self._form["fields"], self._form["contents"], strict=True))
        members = self._members(branches)
        collections = {}
        for counter in (name for name in branches if name.endswith("_size")):
            name = counter.removesuffix("_size")
            if name in members:
                offsets = transforms.counts2offsets_form(branches[counter])
                form = zip_forms(
                    members[name], name, self.mixins.get(name, "NanoCollection"), offsets=offsets
                )
                form["content"]["parameters"].update({"__doc__": name, "collection_name": name})
                collections[name] = form["content"] if name in self.singletons else form
        self._form["fields"], self._form["contents"] = list(collections), list(collections.values())
        self._form["parameters"]["metadata"]["version"] = version

    def _members(self, branches: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the forms of the members of each collection, under the names analysts use."""
        found: dict[str, dict[str, Any]] = {}
        for branch, form in branches.items():
            collection, dot, member = branch.split("/")[-1].partition(".")
            if dot and not branch.endswith(_BOOKKEEPING):
                found.setdefault(collection, {})[member] = form
        for collection, members in found.items():
            for new, old in self.copied.get(collection, {}).items():
                if old in members:
                    members[new] = members[old]
            renamed = self.renamed.get(collection, {})
            found[collection] = {renamed.get(name, name): form for name, form in members.items()}
        return found

    @classmethod
    def behavior(cls) -> dict[Any, Any]:
        """Return the behaviours of the records: Lorentz vectors and coffea's collections."""
        return _BEHAVIOR


class LHEFSchema(ExRootSchema):
    """Reads ``LHEF`` trees: ``Event`` one record per event, ``Particle`` and ``Rwgt`` lists.

    Particles are Lorentz vectors (``px``, ``pt``, ``eta``, ``energy``, sums, ...) made from ``Px``, ``Py``,
    ``Pz``, ``E``; the mass as written in the file is ``Mass``, since ``E`` and ``M`` beside each other would
    give a vector two temporal coordinates.
    """

    mixins: ClassVar[dict[str, str]] = {"Particle": "LorentzVector"}
    renamed: ClassVar[dict[str, dict[str, str]]] = {"Particle": {"E": "t", "M": "Mass"}}
    copied: ClassVar[dict[str, dict[str, str]]] = {"Particle": {"x": "Px", "y": "Py", "z": "Pz"}}


class DelphesSchema(ExRootSchema):
    """Reads ``Delphes`` trees: ``Event`` one record per event, every other collection a list.

    Members have the names of the file (``events.Jet.PT``, ``events.MissingET.MET``); leptons, jets and
    missing momentum as vectors are made by `milanalysis.events.objects.read_objects`.
    """
