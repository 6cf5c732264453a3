"""The store when its process is killed: what was told is there, what was in flight is due."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import os
import sys
from pathlib import Path
from random import Random
from deferred.reactor import Reactor
from service.journal import Journal
from service.message.job import Job
from service.queue.sqlite import SQLiteStore
from service.queue.store import Submission

reactor = Reactor()
store = SQLiteStore(Path(sys.argv[1]), reactor, Journal(), Random())
job = Job(sender="", recipients=("x@a",), content=b"x" * 4000)

def accept(n):
    d = store.accept([Submission(job=job, name=f"j{n}", sites=("a",))])
    d.add_callback(told, n).add_errback(lambda failure: (failure.print_traceback(), os._exit(1)))

def told(done, n):
    print("accepted", done[0].id, flush=True)
    store.claim("a", 1).add_callback(lambda claims: [print("claimed", c.id, flush=True) for c in claims])
    accept(n + 4)

for lane in range(4):
    reactor.call_soon(accept, lane)
reactor.run()
"""


def test_a_killed_process_has_lost_nothing_that_it_told(reactor, open_store, tmp_path):
    """SIGKILL among accepting and claiming: every job told of is in the store, and every one is claimed anew."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "queue.db"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(60)]
        child.kill()
        lines += child.stdout.readlines()
    words = [line.split() for line in lines if line.endswith("\n")]
    told = {id for kind, id in words if kind == "accepted"}
    claimed = {id for kind, id in words if kind == "claimed"}
    assert len(told) >= 20
    assert claimed
    reactor.set_wall_time(reactor.wall_time() + 10 * 365 * 86400)  # whatever this test's clock says, they are due
    store = open_store()
    assert store.aftermath.in_flight >= len(claimed)
    again = {claim.id for claim in reactor.wait(store.claim("a", 10_000))}
    assert told <= again
    assert claimed <= again
