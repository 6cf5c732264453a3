"""What a process uses: its CPU time and its memory, as Linux counts them; and a Python process that does one task."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bench.wrong import Wrong

ROOT: Final = Path(__file__).parent.parent
"""From where modules are run."""

T = TypeVar("T")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Cost(msgspec.Struct, frozen=True):
    """What a task took: `wall` and `cpu` seconds; `idle` and `peak` octets of memory, before and at the most; `each` is
    what every child had, where there were some."""

    wall: float
    cpu: float
    idle: int
    peak: int
    each: int | None = None

    def memory(self, most: int) -> float:
        """Octets for each of the conversations, of which there were `most` at once."""
        return (self.peak - self.idle) / most if self.each is None else self.each


def cpu_seconds(pid: int) -> float:
    """CPU time that the process has used so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int | str = "self", field: str = "VmRSS") -> int:
    """Octets of memory that the process has now; with `VmHWM` the most that it ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise Wrong(f"process {pid} is no more")


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this repository."""
    return [sys.executable, "-m", module, *arguments]


def run(module: str, task: msgspec.Struct, answer: type[T], seconds: float = 1800) -> T:
    """Have a process of its own do a task, and give its answer. Raises `Wrong` where it fails."""
    command = python(module, msgspec.json.encode(task).decode())
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=seconds, check=False)
    if done.returncode:
        raise Wrong(f"{module} has ended with status {done.returncode}")
    return msgspec.json.decode(done.stdout, type=answer)


class Meter:
    """Measures what this process and its children use from now on."""

    def __init__(self) -> None:
        self._idle = memory()
        self._cpu = _cpu()
        self._wall = time.perf_counter()

    def cost(self, each: int | None = None) -> Cost:
        """What has been used so far; what each child's memory was is told."""
        return Cost(time.perf_counter() - self._wall, _cpu() - self._cpu, self._idle, memory(field="VmHWM"), each)


def _cpu() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def raise_open_files(wanted: int) -> int:
    """Let this process, and its children, have so many descriptors, or as many as the system gives; tells how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
