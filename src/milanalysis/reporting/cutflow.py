"""Cutflows as a table for the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

__all__ = ["cutflow_table"]


def cutflow_table(summaries: Mapping[str, Mapping[str, Any]], roles: Mapping[str, str]) -> Table:
    """Return the cutflows of all samples one below the other.

    Args:
        summaries: what `milanalysis.events.processing.tables_of_samples.make_tables` returned, by sample.
        roles: of the samples; weights of observed events are not used, so they have no cross-section.
    """
    table = Table(
        title="events after each cut",
        caption="left: of the events read. fb: cross-section that the events stand for.",
    )
    table.add_column("sample", overflow="fold", min_width=6)
    table.add_column("cut", overflow="fold", min_width=10)
    for heading in ("events", "rejected", "left", "fb"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, summary in summaries.items():
        titles = itertools.chain([escape(name), f"({roles[name]})"], itertools.repeat(""))
        for step in summary["steps"]:
            left = f"{100 * step['events'] / summary['n_read']:.1f} %" if summary["n_read"] else "-"
            section = "-" if roles[name] == "observed" else f"{step['cross_section_fb']:.5g}"
            row = (f"{step['events']}", f"{step['rejected']}", left, section)
            table.add_row(next(titles), escape(step["cut"]), *row)
        if summary["skipped"]:
            known = [one["events"] for one in summary["skipped"] if one["events"] is not None]
            lost = "?" if len(known) < len(summary["skipped"]) else str(sum(known))
            table.add_row("", f"{len(summary['skipped'])} files left out", "", lost, "", "")
        table.add_section()
    return table
