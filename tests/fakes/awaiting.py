"""`python -m tests.fakes.awaiting`: the same as `deferd`, but with a stop (SIGSTOP) when all is imported.

For whoever wants to watch the daemon's work, and not Python's: it goes on by SIGCONT.
"""

import ctypes
import os
import signal

import service.cli.run  # noqa: F401 (what the command imports when it is asked for)
from service.cli import main

_PR_SET_PTRACER = 0x59616D61
_ANY = ctypes.c_ulong(-1)

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY)  # where only parents may trace; elsewhere it is unknown, and no harm
    os.kill(os.getpid(), signal.SIGSTOP)
    main()
