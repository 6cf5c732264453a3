"""docs/performance.md: its tables, between markers that name a benchmark, and the pictures beside it.

    <!-- bench:throughput -->
    ... is replaced ...
    <!-- /bench:throughput -->

What stands between the sections is written by hand, and stays.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Final

from bench.place import file_system
from bench.processes import ROOT
from bench.suite import Shown

DOCUMENT: Final = ROOT / "docs" / "performance.md"


def write(name: str, shown: Shown, document: Path = DOCUMENT) -> None:
    """Put a benchmark's tables and pictures into the document. Raises `LookupError` where it has no place there."""
    parts = [table.markdown() for table in shown.tables]
    for picture in shown.pictures:
        (document.parent / picture.file).write_text(picture.svg)
        parts.append(f"![{picture.alt}]({picture.file})\n")
    text = f"Measured on {machine()}, {time.strftime('%Y-%m-%d')}: `python -m bench {name}`\n"
    document.write_text(replaced(document.read_text(), name, "\n".join([text, *parts])))


def replaced(text: str, name: str, content: str) -> str:
    """The text with another content between the markers of `name`. Raises `LookupError` where they are not in it."""
    begin, end = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise LookupError(f"there is no place for {name}: {begin.strip()} … {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def machine() -> str:
    """This machine, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = ".".join(map(str, sys.version_info[:3]))
    cores = f"{os.cpu_count()} cores ({_processor()})"
    return f"{cores}, {memory:.0f} GiB, {file_system()}, Linux {platform.release()}, Python {python}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
