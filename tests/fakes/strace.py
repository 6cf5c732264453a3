"""Killing a daemon at a system call, by strace.

strace counts the calls of each thread by their name, and kills the process as one of its threads enters the call with
the number that was asked for: what the call would have done has not happened, and nothing after it does. It watches
from the moment at which the daemon comes from its zygote, which has imported everything; a daemon is at work from the
moment at which it asks for its directory's lock (`flock`, once in its life). A `Reference` is a run that was watched,
by which the calls to die at are chosen.

(Not with --seccomp-bpf: there strace stops a thread before the call in a way that lets no signal through.)
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fakes.process import DaemonProcess

Work = Callable[[DaemonProcess], object]

AT_WORK = "flock"
_CALL = re.compile(r"(\d+)\s+(\w+)\(")  # "<... name resumed>" is the end of a call that was counted at its start
_NOT_TO_DIE_AT = {AT_WORK, "exit", "exit_group", "execve", "restart_syscall", "rt_sigreturn"} | {
    # Python's memory and its threads: as many as the moment wants
    *("brk", "clone", "clone3", "madvise", "mprotect", "mremap", "munmap", "rseq", "rt_sigprocmask", "set_robust_list"),
}
_DURABLE = re.compile("fdatasync|fsync|ftruncate|link|rename|unlink")  # what makes a change, or makes it last


def missing() -> str | None:
    """Why nothing can be traced here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else None


class Point(NamedTuple):
    """A system call of the daemon's work: the `number`-th of this name since it began, from 1.

    `before` is how many calls of that name a daemon makes until it is at work.
    """

    name: str
    number: int
    before: int

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class Reference:
    """The system calls of a run that nothing disturbed, in their order, read off what strace wrote of it."""

    def __init__(self, trace: str) -> None:
        calls = [(match[1], match[2]) for match in map(_CALL.match, trace.splitlines()) if match]
        main = calls[0][0]
        begin = calls.index((main, AT_WORK))
        before = Counter(name for thread, name in calls[:begin] if thread == main)
        made: dict[str, Counter[str]] = defaultdict(Counter)
        seen: dict[Point, None] = {}  # whichever thread is the first to come so far is where it dies
        self.listening = 0  # how many points there are until it listens: then the start is over
        for at, (thread, name) in enumerate(calls):
            made[thread][name] += 1
            number = made[thread][name] - before[name]
            if at <= begin or number <= 0 or name in _NOT_TO_DIE_AT:
                continue
            seen.setdefault(Point(name, number, before[name]))
            if name == "listen":
                self.listening = len(seen)
        self.points = list(seen)

    def spread(self, count: int, share: int, shares: int) -> list[Point]:
        """`count` points, evenly spread over the run: one of each stretch of it, of the name that is rarest so far.

        Names of what makes a change, or makes it last, come first. No point is in two of the `shares`, whoever has
        watched the run. They come in any order.
        """
        random = Random(share)
        common = Counter(point.name for point in self.points)
        ours = [point for point in self.points if point.number % shares == share]
        taken: Counter[str] = Counter()
        chosen: list[Point] = []
        for stretch in range(count):
            part = ours[stretch * len(ours) // count : (stretch + 1) * len(ours) // count]
            point = min(part, key=lambda point: (_rank(point, taken), common[point.name], random.random()))
            taken[point.name] += 1
            chosen.append(point)
        random.shuffle(chosen)
        return chosen


def _rank(point: Point, taken: Counter[str]) -> int:
    """How soon a name is to be taken: at once, where it is of those that make a change last and is not there yet."""
    times = taken[point.name]
    return times if times or not _DURABLE.match(point.name) else -1


def watched(process: DaemonProcess, trace: Path, work: Work) -> Reference:
    """What a daemon does that is started, does `work`, and is stopped."""
    _run(process, trace, work)
    return Reference(trace.read_text())


def struck(process: DaemonProcess, trace: Path, point: Point, work: Work) -> bool:
    """Start the daemon, let it do `work`, and kill it at `point`; whether it died there, and at work.

    One that never comes to the point is stopped after its work.
    """
    number = point.before + point.number
    kill = f"inject={point.name}:signal=SIGKILL:when={number}"
    status = _run(process, trace, work, "-e", f"trace={point.name},{AT_WORK}", "-e", kill)
    return status == -signal.SIGKILL and any(AT_WORK in line for line in trace.read_text().splitlines())


def struck_on(process: DaemonProcess, trace: Path, names: str, path: Path, work: Work) -> bool:
    """As `struck`, at the first call of one of these names that concerns `path`."""
    kill = f"inject={names}:signal=SIGKILL"
    return _run(process, trace, work, "-P", str(path), "-e", f"trace={names}", "-e", kill) == -signal.SIGKILL


def _run(process: DaemonProcess, trace: Path, work: Work, *options: str) -> int:
    """Let the daemon do its work under strace, then stop it; its exit status."""
    process.spawn(stopped=True)
    assert process.process
    command = ["strace", "-f", "-p", str(process.process.pid), "-o", str(trace), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr
        told = strace.stderr.readline()
        assert "attached" in told, told
        process.signal(signal.SIGCONT)
        try:
            work(process)
            process.signal(signal.SIGTERM)  # nothing to one that is dead
            return process.wait()
        finally:
            process.kill()  # so that strace ends, too
