"""What the machine gives: open files, and a name."""

from __future__ import annotations

import functools
import gc
import re
import resource
import socket
from typing import Final

from config.domains import own_name

SPARE_FILES: Final = 64
"""Files that are open beside the connections: the database, logs, listeners, files being read."""

_ALLOCATIONS: Final = 100_000
"""More objects made than freed, after which the garbage collector looks at the youngest."""


def most_connections() -> int | None:
    """How many connections the hard limit of open files allows; None is no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else max(0, hard - SPARE_FILES)


def raise_open_files(connections: int) -> int:
    """Raise the soft limit of open files to what `connections` need, as far as the hard limit allows; return it.

    Not simply to the hard limit, which may be a thousand million, and some libraries walk through all of it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(4096, 2 * connections + SPARE_FILES)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def collect_seldom() -> None:
    """Have the garbage collector look seldom, and never at what is there now: for a process of conversations.

    They are freed as they end, by their counts: whatever their end was, nothing of them is in a cycle. With ten
    thousand of them there are a million objects, and to go through these a few times would be a sixth of their cost.
    """
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 5, 10)


@functools.cache
def machine_name() -> str:
    """The machine's name as EHLO wants it: fully qualified, else an address literal (RFC 5321, 4.1.4).

    Asked once in a process: it may have to wait for a name server, and a reload must not.
    """
    for name in (socket.gethostname(), socket.getfqdn()):
        if "." in name and not name.lower().startswith("localhost") and not re.fullmatch(r"[0-9.:]+", name):
            try:
                return own_name(name)
            except ValueError:
                continue
    return f"[{_outward_address()}]"


def _outward_address() -> str:
    """The address that packets to the world would come from. Nothing is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
