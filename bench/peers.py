"""Clients to be measured beside: each does one task as a process of its own, and answers with what it took.

    bare         one epoll loop that does no more than it must: nobody can be much faster in Python
    sessions     deferd's protocol on deferd's reactor
    examples     the document's example on deferd's reactor: a callback for each message
    aiosmtplib   a task for each connection; `seldom`: with deferd's setting of the garbage collector
    threads      a thread for each connection, with smtplib
    processes    a process for each connection, with smtplib

None of them keeps anything: what they have not sent when they die is lost.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import smtplib
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Final

import msgspec

from bench.mail import SENDER
from bench.processes import Cost, Meter, raise_open_files
from bench.task import PeerName, Task
from bench.wrong import Wrong

LOOKED_AT: Final = 20
"""Processes whose memory is looked at: the last ones, in the middle of their conversations."""
AFTER_A_WHILE: Final = 0.3
HOSTNAME: Final = "bench.example"  # else they look it up


def with_aiosmtplib(task: Task) -> None:
    """As its documentation does: connect, sendmail, quit."""
    import aiosmtplib

    async def sender(number: int) -> None:
        host, port = task.addresses[number % len(task.addresses)]
        client = aiosmtplib.SMTP(
            hostname=host, port=port, local_hostname=HOSTNAME, use_tls=False, start_tls=False, timeout=600
        )
        await client.connect()
        for one in task.share(number):
            await client.sendmail(SENDER, [task.mail.recipient(one)], task.content(one))
        await client.quit()

    async def everyone() -> None:
        await asyncio.gather(*map(sender, range(task.connections)))

    asyncio.run(everyone())


def with_aiosmtplib_collecting_seldom(task: Task) -> None:
    """The same, with the garbage collector set as the daemon sets it: that is nothing of aiosmtplib's."""
    from config.system import collect_seldom

    collect_seldom()
    with_aiosmtplib(task)


def send_share(task: Task, number: int) -> None:
    """What a thread or process of its own does, with the standard library."""
    host, port = task.addresses[number % len(task.addresses)]
    with smtplib.SMTP(host, port, local_hostname=HOSTNAME, timeout=600) as client:
        for one in task.share(number):
            client.sendmail(SENDER, [task.mail.recipient(one)], task.content(one))


def with_threads(task: Task) -> None:
    """All threads are started at once."""
    threads = [threading.Thread(target=send_share, args=(task, number)) for number in range(task.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def with_processes(task: Task) -> int:
    """All processes are forked at once. Returns the octets of memory that one has for itself, on average."""
    children = []
    for number in range(task.connections):
        if not (pid := os.fork()):
            _be_a_child(task, number)
        children.append(pid)
    time.sleep(AFTER_A_WHILE)
    looked_at = [_own_memory(pid) for pid in children[-LOOKED_AT:]]
    failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
    if failed:
        raise Wrong(f"{failed} of {len(children)} processes failed")
    return sum(looked_at) // len(looked_at)


def _be_a_child(task: Task, number: int) -> None:
    status = 1
    try:
        send_share(task, number)
        status = 0
    except Exception:  # noqa: BLE001 (it is told by the status)
        traceback.print_exc()
    finally:
        os._exit(status)


def _own_memory(pid: int) -> int:
    """Octets that the process shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


PEERS: Final[dict[PeerName, str]] = {
    "bare": "bench.bare:send",
    "sessions": "bench.callbacks:with_sessions",
    "examples": "bench.callbacks:with_examples",
    "aiosmtplib": "bench.peers:with_aiosmtplib",
    "seldom": "bench.peers:with_aiosmtplib_collecting_seldom",
    "threads": "bench.peers:with_threads",
    "processes": "bench.peers:with_processes",
}
"""Imported when it is wanted, and not before: what one imports is not in the memory of the others."""


def main(task: Task) -> Cost:
    """Do the task in this process."""
    module, _, name = PEERS[task.peer].partition(":")
    send = getattr(importlib.import_module(module), name)
    raise_open_files(task.connections + 100)
    meter = Meter()
    each: int | None = send(task)
    return meter.cost(each)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(msgspec.json.decode(sys.argv[1], type=Task))))
