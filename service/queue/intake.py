r"""Intake: a file that appears in new/ becomes a job, and leaves new/ only once that job is committed.

    inotify ---> names ---> open, check, read ---> a batch ---> store.accept ---> unlink, wake the delivery
    scan    --/                 \--> rejected/ with a .why

inotify tells of a file when its writer has closed it or has renamed it into place, and when a name appears (a link has
no writer). A scan, at the start and now and then, finds what inotify missed. Whether a file that nobody was seen to
close is still being written the kernel is asked (a lease). Where it does not say, and before such a file is refused,
it has to have stayed the same for a while (see `stillness`).

Small files are read on the reactor's thread, a few milliseconds' worth a turn; large ones, and those with attachments,
one at a time in a thread.
Nothing more is read while two batches wait for their commit, so that a disk that is full or slow fills no memory.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec

from deferred.failure import Failure
from deferred.interfaces import Reactor, TimerHandle
from service.journal import Journal
from service.message.job import Job, JobError
from service.queue.aside import name_before
from service.queue.attachments import InThread, without_attachments
from service.queue.drop import DropDirectory, DroppedFile, Identity, NotYet, Refused, printable
from service.queue.lastwork import IN_THREAD, LastWork
from service.queue.layout import Layout
from service.queue.leftovers import Leftovers
from service.queue.stillness import Stillness
from service.queue.store import Accepted, Source, Store, StoreFailed, Submission
from service.queue.watch import Watch

_BATCH: Final = 100
_BATCH_OCTETS: Final = 8 * 1024 * 1024
_BATCHES: Final = 2  # under way at once
_SLICE: Final = 0.004  # seconds of work in one turn
_LARGE: Final = 1024 * 1024
_LARGE_STRUCTURED: Final = 32 * 1024  # of JSON and YAML, which take longer
_LATER: Final = 1.0
_IS_DEADLY: Final = (
    "deferd has died twice while it read this file, which is a fault of deferd's: drop it in another form"
)


class _Read(msgspec.Struct, frozen=True):
    submission: Submission
    source: Source


class Intake:
    """Takes jobs out of new/.

    `read(name, octets)` makes a job of a file or raises `JobError`; `wants(name)` tells whether a file of this name is
    a job at all; `site_of(address)` names a recipient's site; `accepted(sites)` is called when jobs for them are
    durable; `unique` gives a new id's text at each call; `last_work` notes what is being read, in case we die over it,
    and `deadly` are the files over which that has happened too often.
    """

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        journal: Journal,
        layout: Layout,
        drop: DropDirectory,
        *,
        read: Callable[[str, bytes], Job],
        wants: Callable[[str], bool],
        site_of: Callable[[str], str],
        accepted: Callable[[Iterable[str]], object],
        unique: Callable[[], str],
        last_work: LastWork,
        deadly: Collection[Source] = (),
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._results = str(layout.results)
        self._drop = drop
        self._read = read
        self._wants = wants
        self._site_of = site_of
        self._accepted = accepted
        self._leftovers = Leftovers(reactor, journal, drop, unique)
        self._last_work = last_work
        self._deadly = deadly
        self._names: OrderedDict[str, bool] = OrderedDict()  # to be looked at; True: its writer has closed it
        self._later: set[str] = set()
        self._busy: dict[str, bool | None] = {}  # being taken; not None: as in _names, the name has come again
        self._stillness = Stillness(reactor)
        self._batches = 0
        self._large = 0  # in the thread
        self._for_thread: OrderedDict[str, bool] = OrderedDict()  # to be looked at when the thread is free
        self._attaching: set[str] = set()  # of them those that asked for an attachment
        self._work: TimerHandle | None = None
        self._retry: TimerHandle | None = None
        self._running = False
        self._watch = Watch(
            reactor,
            journal,
            layout.new,
            noticed=self._noticed,
            found=self._found,
            trouble=self._leftovers.trouble,
            passed=self._go_on,
            crowded=lambda: len(self._names) > 10 * _BATCH,
        )

    @property
    def trouble(self) -> str | None:
        """What keeps every job from being taken in now; None for nothing."""
        return self._leftovers.trouble.why

    # Noticing

    def start(self) -> None:
        """Watch new/ and take what is in it."""
        self._running = True
        self._watch.start()

    def stop(self) -> None:
        """Take nothing more. What is on its way into the store gets there."""
        self._running = False
        self._watch.stop()
        self._leftovers.stop()
        for timer in (self._work, self._retry):
            if timer is not None:
                timer.cancel()

    def scan(self) -> None:
        """Look through new/ now."""
        self._watch.scan()

    def _noticed(self, name: str, closed: bool) -> None:
        if not self._wants(name):
            return
        if closed and name in self._drop.returned:
            self._drop.returned.discard(name)
            closed = False  # it tells of our own rename; or, where there was another before, the next one does
        self._stillness.noticed(name, closed)
        # what is told last counts: who creates a name that was closed has another file
        if name in self._busy:
            self._busy[name] = closed
        elif name in self._for_thread:
            self._for_thread[name] = closed
        else:
            self._names[name] = closed

    def _found(self, name: str) -> None:
        before = name_before(name)
        if before is not None and self._wants(before):  # left over by a crash: as nobody knows whether it is another
            self._leftovers.put_back(name, before)
        elif self._wants(name) and name not in self._busy:
            self._names.setdefault(name, False)

    # Taking

    def _go_on(self) -> None:
        if self._running and self._more() and self._work is None and self._batches < _BATCHES:
            self._work = self._reactor.call_soon(self._take_some)

    def _more(self) -> bool:
        return bool(self._names or (self._for_thread and not self._large))

    def _take_some(self) -> None:
        self._work = None
        end = self._reactor.time() + _SLICE
        batch: list[_Read] = []
        octets = 0
        while self._more() and len(batch) < _BATCH and octets < _BATCH_OCTETS and self._reactor.time() < end:
            source = self._names if self._large or not self._for_thread else self._for_thread
            name, closed = source.popitem(last=False)
            taken = self._take(name, closed)
            if taken is not None:
                batch.append(taken)
                octets += taken.source.size
        if batch:
            self._offer(batch)
        self._go_on()

    def _take(self, name: str, closed: bool) -> _Read | None:
        """Read one small file; None where there is none to take now."""
        if name in self._busy:
            if self._busy[name] is None:
                self._busy[name] = closed
            return None
        try:
            file = self._drop.open(name)
        except Refused as refusal:
            self._refused(name, closed, refusal)
            return None
        except NotYet as reason:
            self._look_later(name, reason)
            return None
        self._leftovers.trouble.is_over("read")
        if file is None:
            self._stillness.forget(name)
            self._attaching.discard(name)
            return None
        if self._passed_over(file, closed):
            file.close()
            return None
        if file.source in self._deadly:
            file.close()
            self._reject(name, file.identity, _IS_DEADLY)
            return None
        if name in self._attaching or file.size > (_LARGE if name.endswith(".eml") else _LARGE_STRUCTURED):
            self._take_large(file, closed)
            return None
        self._busy[name] = None
        self._last_work.reading(file.source)
        try:
            return self._submission(file, without_attachments(self._read, name, file.read()))
        except InThread:
            self._attaching.add(name)
            self._for_thread[name] = closed
            self._release(name)
            return None
        except Exception:  # noqa: BLE001 (whatever a stranger's file does to our reader, it must not stop the others)
            self._read_failed(file, Failure())
            return None
        finally:
            self._last_work.read()
            file.close()

    def _refused(self, name: str, closed: bool, refusal: Refused) -> None:
        status = self._drop.status(name)
        if status is None:  # new/ itself cannot be looked into, if it is there at all
            self.scan()
            self._stillness.forget(name)
        elif closed or self._stillness.has_lasted(name, status):
            self._reject(name, status, str(refusal))
        else:
            self._look_later(name)

    def _passed_over(self, file: DroppedFile, closed: bool) -> bool:
        """Whether the file is to be left alone now: it is stuck, or somebody writes it still."""
        if self._leftovers.holds(file.name, file.identity):
            return True
        writing = file.being_written()
        if writing is not None:
            self._stillness.forget(file.name)
            return writing  # whoever writes it closes it, and inotify or a scan tells
        if closed or self._stillness.is_whole(file.name, file.identity):
            return False
        self._look_later(file.name)
        return True

    def _take_large(self, file: DroppedFile, closed: bool) -> None:
        if self._large:
            file.close()
            self._for_thread[file.name] = closed
            return
        self._large += 1
        self._busy[file.name] = None
        self._attaching.discard(file.name)

        def done(_: object) -> None:
            self._last_work.read(IN_THREAD)
            file.close()
            self._large -= 1
            self._go_on()

        self._last_work.reading(file.source, IN_THREAD)
        d = self._reactor.defer_to_thread(lambda: self._read(file.name, file.read()))
        d.add_callback(lambda job: self._offer([self._submission(file, job)]))
        d.add_errback(lambda failure: self._read_failed(file, failure))
        d.add_both(done)

    def _submission(self, file: DroppedFile, job: Job) -> _Read:
        if self._busy[file.name] is None:  # else the name stands for another file
            self._stillness.forget(file.name)
        name = file.name.rpartition(".")[0]
        submission = Submission(
            job=job,
            name=name,
            sites=tuple([self._site_of(address) for address in job.recipients]),
            source=file.source,
            name_taken=os.path.lexists(f"{self._results}/{name}.json"),
        )
        return _Read(submission, file.source)

    def _read_failed(self, file: DroppedFile, failure: Failure) -> None:
        name = file.name
        if isinstance(failure.value, NotYet):
            self._release(name)
            self._look_later(name, failure.value)
            return
        why = str(failure.value)
        if not failure.check(JobError):
            self._journal.tell("unhandled_error", error=failure.get_traceback(), where=f"reading {printable(name)}")
            why = f"deferd failed on this file, which is a fault of deferd's: {failure.value!r}"
        self._reject(name, file.identity, why)

    # Handing to the store

    def _offer(self, batch: list[_Read]) -> None:
        self._batches += 1
        d = self._store.accept([one.submission for one in batch])
        d.add_callbacks(lambda done: self._taken(batch, done), lambda failure: self._not_taken(batch, failure))
        d.add_both(self._batch_over)
        d.add_errback(lambda f: self._journal.tell("unhandled_error", error=f.get_traceback(), where="intake"))

    def _batch_over(self, result: object) -> object:
        self._batches -= 1
        self._go_on()
        return result

    def _taken(self, batch: list[_Read], done: list[Accepted]) -> None:
        """The batch is durable: only now is anything told, or removed from new/."""
        sites: dict[str, None] = {}
        for one, accepted in zip(batch, done, strict=True):
            job = one.submission.job
            if accepted.known:
                self._journal.tell("job_known", id=accepted.id, name=one.submission.name)
            else:
                sites |= dict.fromkeys(one.submission.sites)
                self._journal.tell(
                    "job_accepted",
                    id=accepted.id,
                    name=one.submission.name,
                    sender=job.sender,
                    recipients=len(job.recipients),
                    size=len(job.content),
                )
        if sites:
            self._accepted(list(sites))
        for one in batch:
            self._leftovers.remove(one.source)
            self._release(one.source.name)

    def _not_taken(self, batch: list[_Read], failure: Failure) -> None:
        if failure.check(StoreFailed):  # it has been closed: the files stay for the next start
            for one in batch:
                self._busy.pop(one.source.name, None)
        elif len(batch) > 1:  # one of them is at fault: each for itself, so that the others are not
            for one in batch:
                self._offer([one])
        else:
            self._keep_untaken(batch[0].source.name, failure)

    def _keep_untaken(self, name: str, failure: Failure) -> None:
        """A job that the store cannot take though it can commit: a fault of ours. The file stays where it is."""
        self._journal.tell("unhandled_error", where="accept", error=failure.get_traceback())
        self._leftovers.keep(
            name, f"deferd failed to take it, and tries again at its next start: {failure.get_error_message()}"
        )
        self._release(name)

    # Putting aside

    def _reject(self, name: str, read: Identity, why: str) -> None:
        """Put aside what was `read` as `name`, unless the name stands for something else by now."""
        try:
            self._leftovers.reject(name, read, why)
        except NotYet:
            self._release(name)
            self._look_later(name)
        else:
            self._stillness.forget(name)
            self._release(name)

    def _release(self, name: str) -> None:
        closed = self._busy.pop(name, None)
        if closed is not None:  # a new file of this name came while the former was being taken
            self._names[name] = closed
            self._go_on()

    def _look_later(self, name: str, reason: NotYet | None = None) -> None:
        if reason is not None:
            self._leftovers.not_yet(name, reason)
        self._later.add(name)
        if self._retry is None and self._running:
            self._retry = self._reactor.call_later(_LATER, self._look_again)

    def _look_again(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for name in self._later:
            self._names.setdefault(name, False)
        self._later.clear()
        self._go_on()
