"""Clients to be measured beside: each does one task as a process of its own, and answers with what it took.

    bare         one epoll loop that does no more than it must: nobody can be much faster in Python
    aiosmtplib   a task for each connection
    threads      a thread for each connection, with smtplib

None of them keeps anything: what they have not sent when they die is lost.
"""

from __future__ import annotations

import asyncio
import smtplib
import sys
import threading
from collections.abc import Callable
from typing import Final

import aiosmtplib
import msgspec

from bench import bare
from bench.mail import SENDER
from bench.processes import Cost, Meter, raise_open_files
from bench.task import PeerName, Task


def with_aiosmtplib(task: Task) -> None:
    """As its documentation does: connect, sendmail, quit."""

    async def sender(number: int) -> None:
        host, port = task.addresses[number % len(task.addresses)]
        client = aiosmtplib.SMTP(hostname=host, port=port, use_tls=False, start_tls=False, timeout=600)
        await client.connect()
        for one in task.share(number):
            await client.sendmail(SENDER, [task.mail.recipient(one)], task.content(one))
        await client.quit()

    async def everyone() -> None:
        await asyncio.gather(*map(sender, range(task.connections)))

    asyncio.run(everyone())


def with_threads(task: Task) -> None:
    """As the standard library's documentation does, in threads."""

    def sender(number: int) -> None:
        host, port = task.addresses[number % len(task.addresses)]
        with smtplib.SMTP(host, port) as client:
            for one in task.share(number):
                client.sendmail(SENDER, [task.mail.recipient(one)], task.content(one))

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(task.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


PEERS: Final[dict[PeerName, Callable[[Task], None]]] = {
    "bare": bare.send,
    "aiosmtplib": with_aiosmtplib,
    "threads": with_threads,
}


def main(task: Task) -> Cost:
    """Do the task in this process."""
    raise_open_files(task.connections + 100)
    meter = Meter()
    PEERS[task.peer](task)
    return meter.cost()


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(msgspec.json.decode(sys.argv[1], type=Task))))
