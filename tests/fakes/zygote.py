"""`python -m tests.fakes.zygote FD`: has imported what `deferd run` works with, and forks a `deferd` when asked to.

Python's own start takes most of the time until a daemon is at work, and three hundred daemons that are started to be
killed need not prove it three hundred times. Each is a process of its own all the same: it has descriptors of its own,
gets real signals, and ends as Python ends. On the socket FD come the words of each command, and with them where its
output goes; the answer is its pid. Who has ended stays a zombie until its exit status is asked for, so that its pid is
nobody else's before.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys

import service.cli.queue
import service.cli.run  # noqa: F401 (what the commands import when they are asked for)
from service.cli import main

MOST = 65_536
"""Octets of a request or an answer."""

_PR_SET_PTRACER = 0x59616D61
_ANY = ctypes.c_ulong(-1)


def be_born(asked: socket.socket) -> list[str]:
    """Serve until nobody asks any more. Returns in each child, with the words of its command."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(asked, MOST, 1)
        if not request:
            asked.close()
            sys.exit()
        told = json.loads(request)
        if "ended" in told:
            _, status = os.waitpid(told["ended"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            pid = os.fork()
            if pid == 0:
                asked.close()
                _take_over(*descriptors, told["stopped"])
                return list(told["words"])
            os.close(*descriptors)
            if told["stopped"]:
                os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            answer = pid
        asked.send(json.dumps(answer).encode())


def _take_over(output: int, stopped: bool) -> None:
    """Write where it is wanted; stop (SIGSTOP), where somebody wants to watch from the first moment on."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    if stopped:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY)  # where only parents may trace; elsewhere unknown, and no harm
        os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    sys.argv = ["deferd", *be_born(socket.socket(fileno=int(sys.argv[1])))]
    main()
