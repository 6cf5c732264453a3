"""The way from new/ into the store."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from itertools import count

import pytest

from service.message.job import Job, JobError
from service.queue.drop import DropDirectory
from service.queue.inotify import Event
from service.queue.intake import Intake
from service.queue.lastwork import LastWork
from service.queue.layout import prepare
from service.queue.sqlite import SQLiteStore
from tests.queue.conftest import NOW


class World:
    """A queue's directory with an intake that reads `to ADDRESS...` as a job."""

    def __init__(self, reactor, told, open_store, tmp_path):
        self.reactor, self.told = reactor, told
        self.layout = prepare(tmp_path)
        self.drop = DropDirectory(self.layout, 4_000_000)
        self.store: SQLiteStore = open_store(present=self.drop.present)
        self.woken: list[list[str]] = []
        self.read_by: list[str] = []
        serial = count(1)
        self.intake = Intake(
            reactor,
            self.store,
            told.journal,
            self.layout,
            self.drop,
            read=self.read,
            wants=lambda name: name.endswith((".eml", ".json")) and not name.startswith("."),
            site_of=lambda address: address.split("@")[1],
            accepted=lambda sites: self.woken.append(list(sites)),
            unique=lambda: f"id{next(serial)}",
            last_work=LastWork(tmp_path, reactor),
            deadly=self.store.aftermath.deadly,
        )

    def read(self, name, data):
        self.read_by.append(name)
        if data.startswith(b"bug"):
            raise ZeroDivisionError("a bug")
        if not data.startswith(b"to "):
            raise JobError("it does not begin with 'to'")
        return Job(sender="", recipients=tuple(data.decode().split()[1:3]), content=data)

    def last_work_of_a_successor(self):
        """What would be known if we died now. It does not begin anew: we live."""
        notes = self.layout.directory / "last-work"
        copy = self.layout.directory / "copy"
        copy.mkdir(exist_ok=True)
        (copy / "last-work").write_bytes(notes.read_bytes())
        return LastWork(copy, self.reactor).before

    def put(self, name, content="to ann@a.example"):
        """Write a file and close it."""
        (self.layout.new / name).write_text(content)

    def look(self):
        self.reactor.read_files()

    def new(self):
        return sorted(os.listdir(self.layout.new))  # noqa: PTH208 (tests let `scandir` fail, which iterdir may use)

    def rejected(self):
        return sorted(path.name for path in self.layout.rejected.iterdir())

    def why(self, name):
        return (self.layout.rejected / f"{name}.why").read_text()

    def jobs(self):
        return [view.name for view in self.store.list(limit=1000)]


@pytest.fixture
def world(reactor, told, open_store, tmp_path):
    world = World(reactor, told, open_store, tmp_path)
    yield world
    world.intake.stop()


@pytest.fixture
def begun(world):
    world.intake.start()
    world.reactor.settle()
    return world


def test_a_closed_file_becomes_a_job_and_leaves(begun):
    """It is told of and removed once its job is durable, and the delivery is woken."""
    begun.put("hello.eml")
    begun.look()
    assert (begun.jobs(), begun.new(), begun.woken) == (["hello"], [], [["a.example"]])
    [facts] = begun.told.of("job_accepted")
    assert facts["name"] == "hello"
    assert facts["recipients"] == 1


def test_a_file_renamed_into_place_becomes_a_job(begun):
    """Write, then rename: the temporary name is left alone."""
    begun.put("hello.eml.tmp")
    begun.look()
    assert begun.new() == ["hello.eml.tmp"]
    (begun.layout.new / "hello.eml.tmp").rename(begun.layout.new / "hello.eml")
    begun.look()
    assert (begun.jobs(), begun.new()) == (["hello"], [])


def test_a_file_counts_once_its_writer_has_closed_it(begun):
    """Neither the scan nor the event of another's close takes half a file."""
    with open(begun.layout.new / "slow.eml", "w") as file:
        file.write("to ann@")
        file.flush()
        begun.reactor.advance(100)
        assert begun.jobs() == []
        file.write("a.example")
    begun.look()
    assert (begun.jobs(), begun.new()) == (["slow"], [])


def test_what_was_there_before_the_start_is_taken(world):
    """The scan at the start finds it."""
    world.put("old.eml")
    world.put("invoice.pdf")
    world.intake.start()
    world.reactor.settle()
    assert (world.jobs(), world.new()) == (["old"], ["invoice.pdf"])


def test_a_scan_finds_what_inotify_missed(begun):
    """Every half minute, without any event."""
    begun.put("missed.eml")
    begun.reactor.advance(31)
    assert begun.jobs() == ["missed"]


@pytest.mark.parametrize("removed", [True, False])
def test_a_new_that_was_replaced_is_watched(begun, removed):
    """What is dropped into the one that has its name now is noticed at once."""
    if removed:
        begun.layout.new.rmdir()
    else:
        begun.layout.new.rename(begun.layout.directory / "old")
    begun.look()
    begun.layout.new.mkdir()
    begun.reactor.advance(1)
    begun.put("hello.eml")
    begun.look()
    assert begun.jobs() == ["hello"]
    assert begun.told.names() == ["intake_failed", "intake_recovered", "job_accepted"]


def test_a_new_that_was_replaced_unnoticed_is_watched_from_the_next_scan_on(begun):
    """Somebody keeps the old one open, so that the kernel does not tell that it is gone."""
    kept = os.open(begun.layout.new, os.O_RDONLY)
    begun.layout.new.rmdir()
    begun.layout.new.mkdir()
    begun.reactor.advance(31)
    begun.put("hello.eml")
    begun.look()
    os.close(kept)
    assert begun.jobs() == ["hello"]


def test_an_overflow_of_inotify_is_a_scan(begun, monkeypatch):
    """When the kernel dropped events, new/ is looked through at once."""
    begun.reactor.advance(31)
    begun.put("lost.eml")
    monkeypatch.setattr(begun.intake._watch._inotify, "read", lambda: [Event("", 0x4000)])
    begun.look()
    assert begun.jobs() == ["lost"]


def test_without_inotify_new_is_looked_through_each_second(world, monkeypatch):
    """The journal says so; the jobs arrive all the same."""
    monkeypatch.setattr("service.queue.watch.Inotify", lambda _: (_ for _ in ()).throw(OSError("no more watches")))
    world.intake.start()
    world.reactor.settle()
    world.put("hello.eml")
    world.reactor.advance(1.1)
    assert world.jobs() == ["hello"]
    assert world.told.names()[0] == "watch_failed"


# another user's files: the kernel does not tell who writes them


@pytest.fixture
def strange(world, monkeypatch):
    """A world in which no lease is given."""
    monkeypatch.setattr("service.queue.drop.DroppedFile.being_written", lambda _: None)
    return world


@contextlib.contextmanager
def written_slowly(world, name):
    """A file that is half written; it is whole, and closed, at the end."""
    with (world.layout.new / name).open("w") as file:
        file.write("to ann@a.example ")
        file.flush()
        yield
        file.write("bob@b.example")


def test_a_stranger_may_take_long_to_write(strange):
    """What was created before our eyes is left alone until its writer closes it, though he rests meanwhile."""
    strange.intake.start()
    strange.reactor.settle()
    with written_slowly(strange, "slow.eml"):
        strange.look()
        strange.reactor.advance(500)
        assert (strange.jobs(), strange.new()) == ([], ["slow.eml"])
    strange.look()
    assert [len(view.recipients) for view in strange.store.list()] == [2]


def test_one_who_writes_a_name_anew_may_take_as_long(strange):
    """The former file of the name is taken at that moment: what happens to the name counts for the new one."""
    strange.intake.start()
    strange.reactor.settle()
    strange.put("slow.eml")
    for function in list(strange.reactor.readers.values()):
        function()
    strange.reactor.turn()
    (strange.layout.new / "slow.eml").unlink()
    with written_slowly(strange, "slow.eml"):
        strange.look()
        strange.reactor.advance(50)
        assert (strange.jobs(), strange.new()) == (["slow"], ["slow.eml"])
    strange.look()
    assert sorted(len(view.recipients) for view in strange.store.list()) == [1, 2]


def test_one_who_began_before_us_has_some_seconds_between_two_writes(strange):
    """A scan has found the file, and nobody knows whether anybody still writes it."""
    with written_slowly(strange, "slow.eml"):
        os.utime(strange.layout.new / "slow.eml", (NOW, NOW))
        strange.intake.start()
        strange.reactor.advance(9)
        assert strange.jobs() == []
    os.utime(strange.layout.new / "slow.eml", (NOW + 9, NOW + 9))
    strange.reactor.advance(9)
    assert strange.jobs() == []
    strange.reactor.advance(3)
    assert [len(view.recipients) for view in strange.store.list()] == [2]


def test_what_was_dropped_long_before_the_start_waits_but_a_moment(strange):
    """Nobody writes a job for so long."""
    strange.put("old.eml")
    os.utime(strange.layout.new / "old.eml", (NOW - 60, NOW - 60))
    strange.intake.start()
    strange.reactor.advance(2)
    assert strange.jobs() == ["old"]


def test_a_file_that_was_linked_into_new_is_taken_after_ten_minutes(strange):
    """Nobody closes it: there is no writer."""
    strange.put("hello.part")
    strange.intake.start()
    strange.reactor.settle()
    os.link(strange.layout.new / "hello.part", strange.layout.new / "hello.eml")
    (strange.layout.new / "hello.part").unlink()
    strange.look()
    strange.reactor.advance(599)
    assert strange.jobs() == []
    strange.reactor.advance(2)
    assert strange.jobs() == ["hello"]


def test_the_close_of_a_file_that_has_lost_its_name_says_nothing_of_who_has_it_now(strange):
    """Two write under one name, one after the other, and the first takes longer."""
    strange.intake.start()
    strange.reactor.settle()
    first = (strange.layout.new / "slow.eml").open("w")
    strange.look()
    (strange.layout.new / "slow.eml").unlink()
    with written_slowly(strange, "slow.eml"):
        strange.look()
        first.close()
        strange.look()
        strange.reactor.advance(50)
        assert strange.jobs() == []
    strange.look()
    assert [len(view.recipients) for view in strange.store.list()] == [2]


@pytest.mark.parametrize("backlog", [False, True])
def test_a_name_that_was_closed_and_is_created_anew_stands_for_another_file(strange, backlog):
    """Within one read of the events, or while the disk is waited for."""
    strange.intake.start()
    strange.reactor.settle()
    strange.intake._batches = 2 * backlog  # as many as may be under way
    strange.put("slow.eml", "to old@a.example")
    if backlog:
        strange.look()
        strange.reactor.advance(30)
    (strange.layout.new / "slow.eml").unlink()
    with written_slowly(strange, "slow.eml"):
        strange.look()
        strange.intake._batches = 0
        strange.intake._go_on()
        strange.reactor.advance(50)
        assert strange.jobs() == []
    strange.look()
    assert [len(view.recipients) for view in strange.store.list()] == [2]


def test_large_files_that_have_stayed_the_same_do_not_wait_for_one_another(strange):
    """They are read one at a time, and each was looked at while another was."""
    for number in range(10):
        path = strange.layout.new / f"large{number}.eml"
        path.write_text("to ann@a.example bob@b.example " + "x" * 2_000_000)
        os.utime(path, (NOW - 60, NOW - 60))
    strange.intake.start()
    strange.reactor.advance(3)
    assert len(strange.jobs()) == 10


def test_a_hundred_files_are_one_commit(begun, monkeypatch):
    """What is dropped together is accepted together."""
    commits = []
    defer = begun.reactor.defer_to_thread
    monkeypatch.setattr(begun.reactor, "defer_to_thread", lambda f, *a: (commits.append(f), defer(f, *a))[1])
    for n in range(100):
        begun.put(f"j{n}.eml")
    begun.look()
    assert len(begun.jobs()) == 100
    assert len(commits) == 1


def test_a_file_that_is_no_job_is_put_aside_with_the_reason(begun):
    """Never deleted, never fatal; the job beside it goes through."""
    begun.put("bad.eml", "nonsense")
    begun.put("good.eml")
    begun.look()
    assert begun.jobs() == ["good"]
    assert (begun.new(), begun.rejected()) == ([], ["bad.eml", "bad.eml.why"])
    assert begun.why("bad.eml") == "it does not begin with 'to'\n"
    assert begun.told.of("job_rejected") == [{"name": "bad.eml", "why": "it does not begin with 'to'"}]


def test_a_rejected_name_that_is_taken_gets_an_id(begun):
    """The first is not overwritten."""
    for n in range(2):
        begun.put("bad.eml", f"nonsense {n}")
        begun.look()
    assert begun.rejected() == ["bad-id2.eml", "bad-id2.eml.why", "bad.eml", "bad.eml.why"]
    assert (begun.layout.rejected / "bad.eml").read_text() == "nonsense 0"


def test_a_rejected_name_too_long_for_its_why_is_cut(begun):
    """Between characters, with an id."""
    name = "ü" * 125 + ".eml"
    begun.put(name, "nonsense")
    begun.look()
    [kept, why] = begun.rejected()
    assert why == kept + ".why"
    assert kept.endswith("ü-id1.eml")
    assert 250 < len(why.encode()) <= 255


def test_a_bug_in_the_reader_harms_only_its_file(begun):
    """The file is put aside, and the bug told of."""
    begun.put("bad.eml", "bug")
    begun.put("good.eml")
    begun.look()
    assert begun.jobs() == ["good"]
    assert "fault of deferd's" in begun.why("bad.eml")
    assert "ZeroDivisionError" in begun.told.of("unhandled_error")[0]["error"]


def test_a_job_that_the_store_refuses_harms_only_itself(begun, monkeypatch):
    """The others of its batch are offered again without it; its file stays where it is, as it may be a good one."""
    good = begun.read
    monkeypatch.setattr(
        begun.intake,
        "_read",
        lambda name, data: (
            Job(sender="", recipients=("x@a",), content=b"", tags={"x": object()})
            if name == "bad.eml"
            else good(name, data)
        ),
    )
    for name in ("one.eml", "bad.eml", "two.eml"):
        begun.put(name)
    begun.look()
    assert sorted(begun.jobs()) == ["one", "two"]
    assert (begun.layout.new / "bad.eml").exists()
    assert "of type object" in str(begun.told.of("file_stuck"))


def _link(path):
    path.symlink_to("/etc/hostname")


def _hard_link(path):
    other = path.with_name("other.pdf")
    other.write_text("to ann@a.example")
    path.hardlink_to(other)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):  # its path may be too long for a name
        one.bind(path.name)


def _giant(path):
    with open(path, "wb") as file:
        file.truncate(5_000_000)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_link, "symbolic link"),
        (_hard_link, "2 links"),
        (os.mkfifo, "a FIFO"),
        (_socket, "a socket"),
        (os.mkdir, "a directory"),
        (_giant, "5000000 octets"),
    ],
)
def test_what_is_no_plain_file_of_its_own_is_refused(begun, make, why):
    """Each with its reason, without being opened or followed, and nothing beside it stalls."""
    make(begun.layout.new / "evil.eml")
    begun.put("good.eml")
    begun.look()
    begun.reactor.advance(2.5)
    assert begun.jobs() == ["good"]
    assert begun.rejected() == ["evil.eml", "evil.eml.why"]
    assert why in begun.why("evil.eml")
    assert "evil.eml" not in begun.read_by


@pytest.mark.parametrize("name", [b"a\nb.eml", b"\x1b[31m.eml", b"\xff\xfe.eml"])
def test_a_name_that_cannot_be_shown_is_refused(begun, name):
    """Control characters and what is not UTF-8; the journal has the name escaped."""
    with open(os.fsencode(begun.layout.new) + b"/" + name, "wb") as file:
        file.write(b"to ann@a.example")
    begun.look()
    assert begun.jobs() == []
    assert os.fsdecode(name) in begun.rejected()
    assert begun.told.of("job_rejected")[0]["name"].isprintable()


def test_a_file_that_changes_while_it_is_read_is_left_for_later(begun, monkeypatch):
    """It is read again when it has come to rest."""
    real = os.read
    tampered = []

    def read(fd, most):
        data = real(fd, most)
        if data.startswith(b"to ann") and not tampered:
            tampered.append(fd)
            with open(begun.layout.new / "x.eml", "a") as file:
                file.write(" bob@b.example")
        return data

    begun.put("x.eml")
    monkeypatch.setattr(os, "read", read)
    begun.look()
    begun.reactor.advance(2)
    [view] = begun.store.list()
    assert len(view.recipients) == 2


def test_a_file_that_cannot_be_removed_is_told_of_and_never_taken_again(begun, monkeypatch):
    """Neither by a scan nor by the next daemon; once it can be removed, a new start removes it."""
    rename = os.rename

    def refuse(path, target):
        if str(path).endswith("stuck.eml"):
            raise PermissionError(1, "Operation not permitted")
        rename(path, target)

    monkeypatch.setattr(os, "rename", refuse)
    begun.put("stuck.eml")
    begun.look()
    begun.reactor.advance(100)
    assert begun.new() == ["stuck.eml"]
    assert (len(begun.jobs()), begun.told.names().count("file_stuck")) == (1, 1)
    assert begun.read_by == ["stuck.eml"]
    monkeypatch.undo()
    again = World(begun.reactor, begun.told, lambda **_: begun.store, begun.layout.directory)
    again.intake.start()
    begun.reactor.settle()
    again.intake.stop()
    assert (begun.new(), len(begun.jobs())) == ([], 1)
    assert len(begun.told.of("job_known")) == 1


def test_a_file_that_cannot_be_put_aside_is_told_of_once(begun, monkeypatch):
    """It stays where it is, and is looked at again only when it has changed."""
    rename = type(begun.layout.new).rename

    def refuse(path, target):
        if path.name == "bad.eml":
            raise PermissionError(1, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(type(begun.layout.new), "rename", refuse)
    begun.put("bad.eml", "nonsense")
    begun.look()
    begun.reactor.advance(100)
    assert (begun.new(), begun.rejected()) == (["bad.eml"], [])
    assert begun.told.names() == ["file_stuck"]
    begun.put("bad.eml", "to ann@a.example")
    begun.look()
    assert (begun.jobs(), begun.new()) == (["bad"], [])


def test_a_newer_file_of_the_name_is_not_removed_for_the_older(begun):
    """What took the file's place while its job was committed is a job of its own."""
    begun.put("x.eml")
    for function in list(begun.reactor.readers.values()):
        function()
    while not begun.read_by:
        begun.reactor.turn()
    (begun.layout.new / "y.tmp").write_text("to bob@b.example")
    (begun.layout.new / "y.tmp").rename(begun.layout.new / "x.eml")
    begun.look()
    begun.look()
    assert (len(begun.jobs()), begun.new()) == (2, [])


def test_large_files_are_read_in_a_thread_one_at_a_time(begun, monkeypatch):
    """Small ones go on beside them."""
    under_way = []
    most = []
    defer = begun.reactor.defer_to_thread

    def slow(function, *args):
        d = defer(function, *args)
        if "_take_large" in function.__qualname__:
            under_way.append(1)
            most.append(len(under_way))
            d.add_both(lambda result: (under_way.pop(), result)[1])
        return d

    monkeypatch.setattr(begun.reactor, "defer_to_thread", slow)
    for n in range(3):
        begun.put(f"big{n}.eml", "to ann@a.example bob@b.example " + "x" * 1_500_000)
    begun.put("small.eml")
    begun.look()
    begun.reactor.advance(2)
    assert sorted(begun.jobs()) == ["big0", "big1", "big2", "small"]
    assert (most, begun.new()) == ([1, 1, 1], [])


def test_a_large_file_that_is_no_job_is_put_aside(begun):
    """As a small one."""
    begun.put("big.eml", "nonsense" * 200_000)
    begun.look()
    begun.put("big2.eml", "bug" * 500_000)
    begun.look()
    assert begun.rejected() == ["big.eml", "big.eml.why", "big2.eml", "big2.eml.why"]


def test_nothing_more_is_read_while_the_store_cannot_commit(begun, monkeypatch):
    """Two batches wait; the rest stays in new/ until the disk is well again."""
    from service.queue import commit

    good = commit._commit
    monkeypatch.setattr(commit, "_commit", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    for n in range(350):
        begun.put(f"j{n}.eml")
    begun.look()
    assert (len(begun.read_by), len(begun.new())) == (200, 350)
    assert begun.told.of("job_accepted") == []
    monkeypatch.setattr(commit, "_commit", good)
    begun.reactor.advance(10)
    assert (len(set(begun.jobs())), begun.new()) == (350, [])


def test_a_stopped_intake_takes_nothing_more(begun):
    """What comes later stays in new/."""
    begun.intake.stop()
    begun.put("late.eml")
    begun.reactor.advance(100)
    assert begun.new() == ["late.eml"]


def _deny(monkeypatch, name):
    """Let opening this file be refused, as to another user's daemon (the tests may run as root)."""
    real = os.open

    def deny(path, *args, **kwargs):
        if str(path).endswith(f"/{name}"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", deny)


def test_a_file_that_may_not_be_read_is_put_aside(begun, monkeypatch):
    """With how to mend it."""
    _deny(monkeypatch, "secret.eml")
    begun.put("secret.eml")
    begun.look()
    assert "make it readable" in begun.why("secret.eml")


def test_what_a_scan_finds_is_not_refused_while_it_is_being_made(world, monkeypatch):
    """A copy gets its mode at its end: until it has stayed the same for a second it is not judged."""
    world.put("copy.eml", "")
    path = world.layout.new / "copy.eml"
    _deny(monkeypatch, "copy.eml")
    world.intake.start()
    for n in range(5):
        world.reactor.advance(0.9)
        with open(path, "a") as file:
            file.write("to ann@a.example" if n == 0 else " ")
    assert world.rejected() == []
    monkeypatch.undo()
    world.look()
    assert world.jobs() == ["copy"]


@pytest.mark.parametrize(("error", "kept"), [(errno.EMFILE, True), (errno.ELOOP, False), (errno.ENXIO, False)])
def test_what_the_system_lacks_is_no_fault_of_the_file(begun, monkeypatch, error, kept):
    """Out of descriptors: the file waits. A link or a socket that took the file's place after the look: refused."""
    real = os.open

    def fail(path, *args, **kwargs):
        if str(path).endswith("/x.eml"):
            raise OSError(error, os.strerror(error))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)
    begun.put("x.eml")
    begun.look()
    assert (begun.new() == ["x.eml"], begun.rejected() == []) == (kept, kept)
    monkeypatch.undo()
    begun.reactor.advance(2)
    assert begun.jobs() == (["x"] if kept else [])


def test_a_full_disk_leaves_what_is_no_job_for_later(begun, monkeypatch):
    """A note that cannot be written now is written when it can be; the trouble is told of once."""
    from service.queue import drop

    write = drop._write_note
    monkeypatch.setattr(drop, "_write_note", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    begun.put("bad.eml", "nonsense")
    begun.look()
    begun.reactor.advance(10)
    assert (begun.new(), begun.rejected(), begun.told.names()) == (["bad.eml"], [], ["file_stuck"])
    monkeypatch.setattr(drop, "_write_note", write)
    begun.reactor.advance(2)
    assert begun.rejected() == ["bad.eml", "bad.eml.why"]


def test_a_file_over_which_the_daemon_died_twice_is_put_aside_unread(reactor, told, open_store, tmp_path):
    """The next start does not read it; the files beside it become jobs."""
    world = World(reactor, told, open_store, tmp_path)
    world.put("evil.json")
    world.put("fine.eml")
    [source] = [file.source for file in [world.drop.open("evil.json")] if file is not None]
    work = LastWork(tmp_path, reactor)
    for _ in range(2):
        work.reading(source)  # and no more
        work = LastWork(tmp_path, reactor)
        before = work.before
        store = open_store(present=world.drop.present, before=before)
    assert store.aftermath.deadly == (source,)
    world.intake._deadly = store.aftermath.deadly
    world.intake.start()
    reactor.advance(2)
    assert world.read_by == ["fine.eml"]
    assert "died twice" in (world.layout.rejected / "evil.json.why").read_text()
    assert world.told.of("job_rejected")[0]["name"] == "evil.json"


def test_what_is_being_read_is_noted_while_it_is(begun):
    """A death in the middle would be blamed on it; afterwards it is to blame for nothing."""
    seen = []
    read = begun.intake._read

    def watched(name, data):
        seen.append([file.name for file in begun.last_work_of_a_successor().files])
        return read(name, data)

    begun.intake._read = watched
    begun.put("small.eml")
    begun.look()
    begun.put("large.eml", "to ann@a.example " + "x" * 1_500_000)
    begun.look()
    assert seen == [["small.eml"], ["large.eml"]]
    assert begun.last_work_of_a_successor().files == ()


def test_a_directory_that_fails_while_it_is_looked_through_is_looked_through_again(begun, monkeypatch):
    """Told of as long as it lasts; the jobs that inotify missed are found afterwards."""

    class Failing:
        def __next__(self):
            raise OSError(errno.EIO, "Input/output error")

        def __iter__(self):
            return self

    begun.put("late.eml")
    begun.reactor.advance(1)  # (not read from inotify in this test)
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: Failing() if str(path).endswith("new") else real(path))
    begun.reactor.advance(40)
    assert "Input/output error" in begun.told.of("intake_failed")[0]["why"]
    monkeypatch.undo()
    begun.reactor.advance(2)
    assert begun.jobs() == ["late"]
    assert len(begun.told.of("intake_failed")) == len(begun.told.of("intake_recovered")) == 1
