"""How coffea sees a ROOT tree, and which branches a tree has to have.

`LHEFSchema` reads the ``LHEF`` trees of ExRootLHEFConverter and those of `milanalysis.simulation.lhe`. It names
what physicists name (``events.Particle.px``, ``events.Event.Weight``) and reads only the branches that are used.
"""

from __future__ import annotations

from typing import Any, ClassVar

from coffea.nanoevents import transforms
from coffea.nanoevents.methods import base, vector
from coffea.nanoevents.schemas.base import BaseSchema, zip_forms

__all__ = ["LHEF_BRANCHES", "LHEFSchema"]

LHEF_BRANCHES = (
    "Event.Weight",
    "Particle.PID",
    "Particle.Status",
    "Particle.Px",
    "Particle.Py",
    "Particle.Pz",
    "Particle.E",
    "Particle.M",
)
"""Branches without which an ``LHEF`` tree is of no use; ``Rwgt.Weight`` is needed only for event weights."""

_BEHAVIOR: dict[Any, Any] = {**base.behavior, **vector.behavior}
_BOOKKEEPING = (".fUniqueID", ".fBits")  # of ROOT's TObject; not always readable, never of interest


class LHEFSchema(BaseSchema):
    """Reads ``LHEF`` trees: ``Event`` one record per event, ``Particle`` and ``Rwgt`` lists.

    Every collection ``X`` that has a counter branch ``X_size`` is found, whether its members are called
    ``X/X.member`` or ``X.member``. Particles are Lorentz vectors (``px``, ``pt``, ``eta``, ``energy``, sums, ...)
    made from ``Px``, ``Py``, ``Pz``, ``E``; the mass as written in the file is ``Mass``, since ``E`` and ``M``
    beside each other would give a vector two temporal coordinates.
    """

    mixins: ClassVar[dict[str, str]] = {"Particle": "LorentzVector"}
    renamed: ClassVar[dict[str, dict[str, str]]] = {"Particle": {"E": "t", "M": "Mass"}}
    copied: ClassVar[dict[str, dict[str, str]]] = {"Particle": {"x": "Px", "y": "Py", "z": "Pz"}}
    singletons: ClassVar[tuple[str, ...]] = ("Event",)

    def __init__(self, base_form: dict[str, Any], version: str = "latest", **_: Any) -> None:
        super().__init__(base_form)
        branches = dict(zip(self._form["fields"], self._form["contents"], strict=True))
        collections = {}
        for counter in (name for name in branches if name.endswith("_size")):
            name = counter.removesuffix("_size")
            members = self._members(name, branches)
            if members:
                offsets = transforms.counts2offsets_form(branches[counter])
                form = zip_forms(members, name, self.mixins.get(name, "NanoCollection"), offsets=offsets)
                form["content"]["parameters"].update({"__doc__": name, "collection_name": name})
                collections[name] = form["content"] if name in self.singletons else form
        self._form["fields"], self._form["contents"] = list(collections), list(collections.values())
        self._form["parameters"]["metadata"]["version"] = version

    def _members(self, collection: str, branches: dict[str, Any]) -> dict[str, Any]:
        """Return the forms of a collection's members under the names analysts use."""
        members = {}
        for branch, form in branches.items():
            leaf = branch.split("/")[-1]
            if leaf.startswith(f"{collection}.") and not leaf.endswith(_BOOKKEEPING):
                members[leaf.removeprefix(f"{collection}.")] = form
        for new, old in self.copied.get(collection, {}).items():
            if old in members:
                members[new] = members[old]
        renamed = self.renamed.get(collection, {})
        return {renamed.get(name, name): form for name, form in members.items()}

    @classmethod
    def behavior(cls) -> dict[Any, Any]:
        """Return the behaviours of the records: Lorentz vectors and coffea's collections."""
        return _BEHAVIOR
