"""Puts messages straight into deferd's store, by the store's own interface: a queue of any length within moments."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator
from typing import Any, Final

import msgspec

from bench.deferd import Filling
from bench.mail import SENDER
from config.loader import load
from deferred.defer import Deferred, inline_callbacks
from deferred.reactor import Reactor
from service.delivery.routes import Router
from service.journal import Journal
from service.message.job import Job
from service.queue.layout import prepare
from service.queue.sqlite import SQLiteStore
from service.queue.store import Submission

_BATCH: Final = 1 << 20
"""Octets of content taken at once, or a thousand messages."""


def fill(task: Filling) -> int:
    """Do it, and tell how many messages there are."""
    settings = load(task.config)
    layout = prepare(settings.queue.directory)
    with Reactor() as reactor:  # no result is owed of what has waited for a while: it has been written
        store = SQLiteStore(layout.database, reactor, Journal(), random.Random(1), results="none")
        reactor.run_until_complete(_accept(store, Router(settings.routes), task))
        reactor.run_until_complete(store.close())
    return task.mail.messages


@inline_callbacks
def _accept(store: SQLiteStore, router: Router, task: Filling) -> Generator[Deferred[Any], Any, None]:
    yield store.reroute(router.site_of, router.fingerprint())  # as a daemon that had taken them in would have done
    numbers = task.mail.numbers
    step = max(1, min(1000, _BATCH // task.mail.size))
    for at in range(0, len(numbers), step):
        yield store.accept([_submission(task, router, number) for number in numbers[at : at + step]])


def _submission(task: Filling, router: Router, number: int) -> Submission:
    recipient = task.mail.recipient(number)
    job = Job(sender=SENDER, recipients=(recipient,), content=task.mail.content(number), not_before=task.not_before)
    return Submission(job=job, name=f"fill-{number}", sites=(router.site_of(recipient),))


if __name__ == "__main__":
    print(fill(msgspec.json.decode(sys.argv[1], type=Filling)))
