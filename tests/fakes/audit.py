"""The books of a queue whose daemon is killed again and again: what was dropped into it, and what became of it.

Every recipient's address is one job's alone and says what its server answers: `yes` is taken, `later` is put off once
with 450, `no` is refused with 550 as often as it is tried. Every sender's address is one job's alone, too, so that
a bounce is known by whom it is for: an address means a message.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import apsw

from service.queue.commands import CommandStore
from service.queue.store import Counts
from tests.fakes.process import ROOT, DaemonProcess, eventually
from tests.fakes.relay import Arrival, Relay

SETTINGS: dict[str, Any] = {
    "retry": {"delays": ["50ms"], "jitter": 0, "site_rest": {"first": "50ms", "longest": "200ms"}},
    "limits": {"connections_per_site": 4},
}
KINDS = (
    ("yes",),
    ("yes", "yes", "yes"),
    ("yes", "no"),
    ("yes", "later"),
    ("no", "no"),
    ("yes",),
    ("later", "no", "yes"),
)
"""The jobs that are dropped, in turn, by their recipients."""
LARGE = 300_000
LARGE_EVERY = 12
ALARMS = {"unhandled_error", "store_failed", "file_stuck", "result_failed", "watch_failed", "not_json"}
"""Events that no kill may bring about, nor a line that is no event."""
DEADLY = "died twice"
"""In the words for a file at which the daemon has died twice, and which it therefore does not read again."""


@dataclass
class Job:
    """A job that was dropped, and the text that it brings."""

    name: str
    recipients: tuple[str, ...]
    text: bytes

    @property
    def sender(self) -> str:
        """Who is told where a recipient fails."""
        return f"sender-{self.name}@a.example"

    @property
    def refused(self) -> set[str]:
        """The recipients that fail."""
        return {recipient for recipient in self.recipients if recipient.startswith("no-")}

    @property
    def state(self) -> str:
        """How it ends."""
        return {0: "delivered", len(self.recipients): "failed"}.get(len(self.refused), "partly")


@dataclass
class Tally:
    """What the audit has counted: `held` jobs and files `set_aside` are those at which the daemon had died twice."""

    jobs: int
    recipients: int
    held: int
    set_aside: int
    duplicates: int = 0
    lost: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Books:
    """Drops jobs into the directory of `process`, keeps its logs, and tells what became of all of it."""

    def __init__(self, process: DaemonProcess, relay: Relay) -> None:
        self.process = process
        self.relay = relay
        self.jobs: dict[str, Job] = {}
        self.events: list[dict[str, Any]] = []
        self._numbers = count()
        self._copies: dict[str, int] = {}  # of messages whose delivery was told: no more may come
        self._held = 0
        self._set_aside = 0
        (process.queue / "new").mkdir(parents=True)

    def drop(self) -> str:
        """Drop the next job; its name."""
        number = next(self._numbers)
        name = f"job-{number}"
        recipients = tuple(f"{kind}-{name}-{n}@b.example" for n, kind in enumerate(KINDS[number % len(KINDS)]))
        size = LARGE if number % LARGE_EVERY == LARGE_EVERY - 1 else 100
        self.jobs[name] = Job(name, recipients, f"This is {name}.\r\n".encode() * (size // 16))
        for recipient in recipients:
            if recipient.startswith("later-"):
                self.relay.script[recipient] = ["450 4.2.0 later"]
            elif recipient.startswith("no-"):
                self.relay.script[recipient] = ["550 5.1.1 nobody here"] * 100
        self._drop(name)
        return name

    def _drop(self, name: str) -> None:
        job = self.jobs[name]
        head = [f"X-Sender: <{job.sender}>", *(f"X-Receiver: <{recipient}>" for recipient in job.recipients)]
        self.process.drop(f"{name}.eml", "\r\n".join([*head, f"Subject: {name}", "", ""]).encode() + job.text)

    def result(self, name: str) -> dict[str, Any] | None:
        """The job's result, if there is one yet."""
        path = self.process.queue / "results" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def at_rest(self, name: str) -> bool:
        """Whether the daemon does nothing more for this job by itself."""
        result = self.result(name)
        return result is not None and result["state"] != "queued"

    def keep_log(self) -> None:
        """Take the log of a run that is over into the books."""
        copies = self._count_copies()
        self._copies |= {event["recipient"]: copies[event["recipient"]] for event in self._events("delivered")}
        self.events += self.process.events

    def _events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.process.events if event["event"] == name]

    def _count_copies(self) -> Counter[str]:
        return Counter(recipient for arrival in self.relay.arrivals for recipient in arrival.recipients)

    # The end

    def settle(self) -> None:
        """A last run that nothing disturbs: until the queue is empty, with all that was set aside tried once more."""
        self.process.start()
        self._wait_for_intake()
        for why in (self.process.queue / "rejected").glob("*.why"):
            if DEADLY in why.read_text():
                self._set_aside += 1
                self._drop(why.name.removesuffix(".eml.why"))  # as the file that it came from, but another
                why.with_suffix("").unlink()
                why.unlink()
        self._wait_for_intake()
        self._wait_until(lambda counts: counts.queued == counts.held)
        held = self._queued()
        assert all(job["state"] == "held" for job in held), held
        self._held = len(held)
        deferd(self.process, "queue", "release", "--all")
        self._wait_until(lambda counts: counts.queued == 0)
        assert self._queued() == []
        assert self.process.stop() == 0  # all results have been written then
        self.keep_log()

    def _wait_for_intake(self) -> None:
        eventually(lambda: list((self.process.queue / "new").iterdir()), lambda left: left == [])

    def _wait_until(self, holds: Callable[[Counts], bool]) -> None:
        """By looking into the store: to look by a command, a process each time, would cost more than all that is done.
        Suspects have their turns for 16 seconds."""
        with CommandStore(self.process.queue, time.time) as store:
            eventually(store.count, holds)

    def _queued(self) -> list[dict[str, Any]]:
        """What is in the queue, reports too."""
        jobs: list[dict[str, Any]] = json.loads(deferd(self.process, "queue", "list", "--json"))
        return jobs

    # The audit

    def audit(self) -> Tally:
        """What became of every job, after `settle`."""
        recipients = sum(len(job.recipients) for job in self.jobs.values())
        tally = Tally(len(self.jobs), recipients, self._held, self._set_aside)
        copies = self._count_copies()
        bounced = self._bounced(tally)
        for job in self.jobs.values():
            tally.lost += [f"{r} never arrived" for r in job.recipients if r not in job.refused and not copies[r]]
            tally.wrong += [f"{r} was refused, and arrived" for r in job.refused if copies[r]]
            tally.wrong += self._result_is_wrong(job)
            self._check_bounces(tally, job, bounced[job.sender])
        self._check_contents(tally)
        self._explain_duplicates(tally, copies)
        self._check_log(tally)
        tally.wrong += self._left_over()
        return tally

    def _bounced(self, tally: Tally) -> dict[str, dict[str, set[str]]]:
        """For each sender its bounces, by Message-ID, with the recipients that they tell of."""
        bounced: dict[str, dict[str, set[str]]] = defaultdict(dict)
        for bounce in self.relay.arrivals:
            if bounce.sender:
                continue
            text = bounce.content.decode()
            ids = re.findall(r"^Message-ID: (\S+)", text, re.MULTILINE | re.IGNORECASE)
            if not ids or len(bounce.recipients) != 1:
                tally.wrong.append(f"no bounce: {bounce}")
                continue
            failed = re.findall(r"^Final-Recipient: rfc822; ?(\S+)", text, re.MULTILINE | re.IGNORECASE)
            bounced[bounce.recipients[0]][ids[0]] = set(failed)
        return bounced

    def _check_bounces(self, tally: Tally, job: Job, told: dict[str, set[str]]) -> None:
        """One for all recipients that failed, however often it arrived; none where none failed."""
        if job.refused and not told:
            tally.lost.append(f"{job.sender} was never told of {job.refused}")
        elif list(told.values()) != [job.refused] * bool(job.refused):
            tally.wrong.append(f"{job.sender} was told {told}; {job.refused} failed")

    def _check_contents(self, tally: Tally) -> None:
        owners = {recipient: job for job in self.jobs.values() for recipient in job.recipients}

        def is_right(arrival: Arrival) -> bool:
            jobs = {owners[recipient].name for recipient in arrival.recipients}
            job = owners[arrival.recipients[0]]
            text = arrival.content.partition(b"\r\n\r\n")[2]
            return len(jobs) == 1 and (arrival.sender, text) == (job.sender, job.text)

        tally.wrong += [f"no job: {a}"[:500] for a in self.relay.arrivals if a.sender and not is_right(a)]

    def _result_is_wrong(self, job: Job) -> list[str]:
        result = self.result(job.name)
        if result is None:
            return [f"{job.name} has no result"]
        ends = {recipient["address"]: recipient["state"] for recipient in result["recipients"]}
        wanted = {r: "failed" if r in job.refused else "delivered" for r in job.recipients}
        good = (result["state"], ends) == (job.state, wanted)
        return [] if good else [f"{job.name} is {result['state']}: {ends}"]

    def _explain_duplicates(self, tally: Tally, copies: Counter[str]) -> None:
        """A message comes twice only where the log says that it may, and never once it was told to be delivered."""
        told = {event["recipient"]: event["id"] for event in self.events if event["event"] == "possible_duplicate"}
        for recipient, times in copies.items():
            tally.duplicates += times - 1
            if times > 1 and recipient not in told:
                tally.unexplained.append(f"{recipient} got its message {times} times, and nobody said so")
            if times > self._copies.get(recipient, times):
                tally.unexplained.append(f"{recipient} got its message again after it was told to be delivered")
        ids = {r: (self.result(job.name) or {}).get("id") for job in self.jobs.values() for r in job.recipients}
        tally.wrong += [f"{r} is not of {id}" for r, id in told.items() if ids.get(r, id) != id]

    def _check_log(self, tally: Tally) -> None:
        for event in self.events:
            refused = event["event"] == "job_rejected" and DEADLY not in event["why"]
            if event["event"] in ALARMS or refused:
                tally.wrong.append(f"the log says {event}")

    def _left_over(self) -> list[str]:
        """What is still in the directory, or in the store, though every job has ended."""
        queue = self.process.queue
        found = [f"{path} is left" for name in ("new", "rejected") for path in (queue / name).iterdir()]
        results = {path.name for path in (queue / "results").glob("*.json")}
        found += [f"a result of nothing: {name}" for name in results - {f"{name}.json" for name in self.jobs}]
        connection = apsw.Connection(str(queue / "queue.db"), flags=apsw.SQLITE_OPEN_READONLY)
        for table in ("delivery", "content", "piece", "owed"):
            rows = connection.execute(f"SELECT count(*) FROM {table}").get
            found += [f"{rows} rows are left in {table}"] if rows else []
        sound = connection.pragma("integrity_check")
        connection.close()
        return found if sound == "ok" else [*found, f"the store is damaged: {sound}"]


def deferd(process: DaemonProcess, *words: str) -> str:
    """What a command says of the queue of `process`."""
    words = (*words, "-c", str(process.config))
    if process.zygote is not None:
        forked = process.zygote.fork(*words)
        with forked.stdout:
            said = forked.stdout.read()
        assert forked.wait() == 0, said
        return said
    command = [sys.executable, "-m", "service.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=process.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout
