"""The machine's clock since it was booted: it goes on while the machine sleeps and while no deferd runs."""

from __future__ import annotations

import time
from pathlib import Path

from service.queue.calendar import BootClock


def boot_clock() -> BootClock | None:
    """The clock of this boot; None where the system has none, or does not tell one boot from another."""
    number = getattr(time, "CLOCK_BOOTTIME", None)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The clock's zero is another in a time namespace of one's own, which a container may have.
        namespace = Path("/proc/self/ns/time")
        boot += f" {namespace.readlink()}" if namespace.is_symlink() else ""
    except OSError:
        return None
    return None if number is None else BootClock(boot, lambda: time.clock_gettime(number))
