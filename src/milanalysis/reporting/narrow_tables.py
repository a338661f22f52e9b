"""Tables on terminals that are narrower than they are: the same numbers, one below the other."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["fitted"]


def fitted(table: Table, console: Console) -> RenderableType:
    """Return a table as it is if it fits into a console, else a list: a title and a line for each cell.

    Numbers are never cut, and no column disappears.
    """
    for column in table.columns:
        column.overflow = "fold"
    for column in table.columns[1:]:
        column.no_wrap = True
    if Measurement.get(console, console.options.update(max_width=10_000), table).minimum <= console.width:
        return table
    headings = [_text(console, column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    parts: list[RenderableType] = [] if table.title is None else [_text(console, table.title)]
    for row in rows:
        title, *cells = (_text(console, cell) for cell in row)
        parts.append(title)
        parts += [
            Padding(Text.assemble(heading, ": ", cell), (0, 0, 0, 2))
            for heading, cell in zip(headings[1:], cells, strict=True)
        ]
    if table.caption is not None:
        parts.append(_text(console, table.caption))
    return Group(*parts)


def _text(console: Console, value: RenderableType) -> Text:
    """Return what a cell shows."""
    return console.render_str(value) if isinstance(value, str) else Text(str(value))
