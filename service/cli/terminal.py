"""What the commands print: tables for people where a terminal shows them, else plain text or JSON.

What a server or a file said is never acted on by the terminal: whatever cannot be printed is escaped, and nothing is
taken for markup.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec

_LAST_COLUMN: Final = 40
"""Characters that there are at least for the last column: what a server said, mostly."""

_UNWRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def is_unwritten(error: OSError) -> bool:
    """Whether it is what the system says where standard output takes nothing, and not of a file with a name."""
    return error.filename is None and error.errno in _UNWRITTEN


def unwritable(error: OSError, *more: str, program: str = "deferd") -> None:
    """Say that standard output cannot be written, if that can be said, and do not try again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        for line in (f"standard output cannot be written: {error.strerror}", *more):
            click.echo(f"{program}: {line}", err=True)
    except OSError:  # nor can standard error, which may be the same
        os.dup2(1, 2)


def clean(text: object) -> str:
    """`text` with everything escaped that a terminal might act on; "" for None."""
    if text is None:
        return ""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def print_json(value: Any) -> None:
    """Print a value, structs and all, as one line of JSON in ASCII."""
    text = json.dumps(msgspec.to_builtins(value)).replace("\x7f", "\\u007f")
    click.echo(text)


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under titles: as a table on a terminal, else in aligned columns."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        _print_rich(titles, cells)
        return
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    for row in ([title.upper() for title in titles], *cells):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles[:-1]:
        table.add_column(title, no_wrap=True)
    table.add_column(titles[-1], overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    # where the terminal is too narrow it breaks the lines: an id or a time in two pieces could not be copied
    before_last = sum(max(map(len, column)) + 2 for column in list(zip(titles, *cells, strict=True))[:-1])
    console.width = max(console.width, before_last + _LAST_COLUMN)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        click.echo(line.rstrip())
