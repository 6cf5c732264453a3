"""Daemons that are forked off a zygote (see there): what `subprocess` is to those that are executed."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fakes.zygote import MOST

ROOT = Path(__file__).parents[2]


class Zygote:
    """A process that forks; `environ` is its own, and that of all who come from it. To be entered before it is used."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self._lock = threading.Lock()

    def fork(self, *words: str, stopped: bool = False) -> Forked:
        """A new `deferd` with these words; `stopped`: it waits for SIGCONT, and has been waited for."""
        ours, its = os.pipe()
        try:
            pid = self._ask({"words": words, "stopped": stopped}, its)
        finally:
            os.close(its)
        return Forked(self, pid, ours)

    def status(self, pid: int) -> int:
        """How this child has ended, which is then forgotten."""
        return self._ask({"ended": pid})

    def _ask(self, request: dict[str, Any], *descriptors: int) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            answer: int = json.loads(self._socket.recv(MOST))
        return answer

    def __enter__(self) -> Zygote:
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.zygote", str(its.fileno())],
                stdout=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                env=self.environ,
                cwd=ROOT,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.wait()


class Forked:
    """Who was forked: as much of `subprocess.Popen` as a test asks for."""

    def __init__(self, zygote: Zygote, pid: int, output: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = os.fdopen(output)
        self._zygote = zygote
        self._descriptor = os.pidfd_open(pid)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            over = select.poll()
            over.register(self._descriptor, select.POLLIN)
            if not over.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("deferd", timeout or 0.0)
            self.returncode = self._zygote.status(self.pid)
        return self.returncode

    def __del__(self) -> None:
        os.close(self._descriptor)
