"""The real daemon with files in new/ that mean harm: each is refused with its reason, and none holds up another."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import disk
from tests.fakes.hostile import Hostile
from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay
from tests.fakes.witness import eml, in_new, left_new, told

MakeDaemon = Callable[..., DaemonProcess]
Make = Callable[[Path], object]
LETTER = {"from": "ann@a.example", "to": ["bob@b.example"], "text": "Hi."}


def link_to(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def hard_link(path: Path) -> None:
    other = path.with_name(f"{path.name}.other")
    other.write_bytes(eml("bob"))
    path.hardlink_to(other)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):  # its path may be too long for a name
        one.bind(path.name)


def full_directory(path: Path) -> None:
    path.mkdir()
    (path / "inner.eml").write_bytes(eml("bob"))


def sparse_giant(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def closed(path: Path) -> None:
    path.touch(mode=0)


def holding(content: bytes | str) -> Make:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def letter(**change: object) -> Make:
    return holding(json.dumps({**LETTER, **change}))


def written(*, sender: str = "ann@a.example", to: str = "bob@b.example") -> Make:
    return holding(f"X-Sender: {sender}\nX-Receiver: {to}\nSubject: x\n\nHi.\n")


HOSTILE: dict[str, tuple[Make, str]] = {  # the file's name: how it is made, a word of the reason
    "link.eml": (link_to("/etc/passwd"), "symbolic link"),
    "dangling.eml": (link_to("nowhere"), "symbolic link"),
    "loop.eml": (link_to("loop.eml"), "symbolic link"),
    "terminal.eml": (link_to("/dev/tty"), "symbolic link"),
    "hard.eml": (hard_link, "2 links"),
    "fifo.eml": (os.mkfifo, "a FIFO"),
    "socket.eml": (bound_socket, "a socket"),
    "directory.eml": (full_directory, "a directory"),
    "giant.eml": (sparse_giant, "octets"),
    "giant.json": (sparse_giant, "octets"),
    "closed.eml": (closed, "make it readable"),
    "control\n\x1b[31m.eml": (holding(eml("bob")), "control characters"),
    "\udcff\udcfe.eml": (holding(eml("bob")), "not UTF-8"),
    "n" * 251 + ".eml": (holding(b"no job"), "no sender"),
    "empty.eml": (holding(b""), "no sender"),
    "nul.eml": (holding(eml("bob") + b"\0"), "NUL"),
    "alias.yaml": (holding("a: &a [x, x]\nb: [*a, *a]\n"), "aliases"),
    "bomb.yaml": (holding("a: &a [x]\n" + "".join(f"k{n}: &k{n} [*a, *a, *a]\n" for n in range(9))), "aliases"),
    "twice.yaml": (holding("from: a@a.example\nfrom: b@b.example\n"), "twice"),
    "deep.yaml": (holding("[" * 100_000), "nest"),
    "tagged.yaml": (holding("a: !!python/object/apply:os.system [id]\n"), "the tag"),
    "wide.yaml": (holding("tags: {" + "".join(f"k{n}: 1, " for n in range(200_000)) + "}\n"), "over 50000 values"),
    "twice.json": (holding('{"from": "a@a.example", "from": "b@b.example"}'), "twice"),
    "deep.json": (holding('{"a":' * 100_000), "nest"),
    "wide.json": (holding(json.dumps({"tags": {f"k{n}": 1 for n in range(200_000)}})), "over 1048576 octets"),
    "cutoff.json": (holding('{"from": '), "JSON"),
    "crlf.json": (letter(to=["bob@b.example\r\nRCPT TO:<eve@b.example>"]), "bob@b.example"),
    "subject.json": (letter(subject="x\r\nBcc: eve@b.example"), "subject"),
    "name.json": (letter(headers={"X-A\r\nBcc": "eve@b.example"}), "header"),
    "value.json": (letter(headers={"X-A": "x\nBcc: eve@b.example"}), "X-A"),
    "outside.json": (letter(attachments=[{"path": "/etc/passwd"}]), "outside new/"),
    "upwards.json": (letter(attachments=[{"path": "../deferd.lock"}]), "'..'"),
    "linked.json": (letter(attachments=[{"path": "secret.pdf"}]), "without links"),
    "pipe.json": (letter(attachments=[{"path": "pipe"}]), "no regular file"),
    "nobody.json": (letter(to=[]), "no recipient"),
    "many.json": (letter(to=[f"u{n}@b.example" for n in range(1001)]), "1000"),
    "nodomain.eml": (written(to="bob"), "bob"),
    "tab.eml": (written(to="b\tob@b.example"), "U+0009"),
    "sender.eml": (written(sender="ann\x7f@a.example"), "U+007F"),
}


def reason(process: DaemonProcess, name: str) -> str:
    """Why the file was put aside; its name may have been cut to have room for the note's."""
    found = list((process.queue / "rejected").glob(f"{name[:50].replace('[', '[[]')}*.why"))
    return found[0].read_text() if found else ""


def test_each_hostile_file_is_put_aside_with_its_reason_and_none_holds_up_another(
    daemon: MakeDaemon, relay: Relay
) -> None:
    """All of them at once, with good jobs among them, which arrive; the daemon answers all the while."""
    process = daemon(relay)
    process.spawn(*disk.UNPRIVILEGED)
    process.wait_for("started")
    new = process.queue / "new"
    (new / "secret.pdf").symlink_to("/etc/passwd")
    os.mkfifo(new / "pipe")
    asked = []
    for number, (name, (make, _)) in enumerate(HOSTILE.items()):
        make(new / name)
        process.drop(f"good-{number}.eml", eml(f"good-{number}"))
        began = time.monotonic()
        assert process.get("/healthz")[0] == 200
        asked.append(time.monotonic() - began)
    for number in range(len(HOSTILE)):
        assert process.result(f"good-{number}")["state"] == "delivered"
    for name, (_, why) in HOSTILE.items():
        told_why = eventually(lambda name=name: reason(process, name))
        assert why in told_why, name
    assert sorted(asked)[len(asked) * 9 // 10] < 0.1  # other tests share this machine's cores
    assert in_new(process) == {"secret.pdf", "pipe", "hard.eml.other"}
    assert len(relay.arrivals) == len(HOSTILE)
    assert process.stop() == 0
    assert len(told(process, "job_rejected")) == len(HOSTILE)
    assert not told(process, "unhandled_error", "file_stuck")
    assert all(event["name"].isprintable() for event in told(process, "job_rejected"))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused_without_being_opened(daemon: MakeDaemon, relay: Relay) -> None:
    """To open some devices does something: this one, with no driver behind it, cannot even be opened."""
    process = daemon(relay).start()
    for name, kind in (("character.eml", stat.S_IFCHR), ("block.eml", stat.S_IFBLK)):
        os.mknod(process.queue / "new" / name, kind | 0o600, os.makedev(240, 99))
        assert "it is a device" in eventually(lambda name=name: reason(process, name))
    process.drop("good.eml", eml("good"))
    assert process.result("good")["state"] == "delivered"


def test_a_file_that_is_written_and_swapped_all_the_time_stalls_nobody(daemon: MakeDaemon, relay: Relay) -> None:
    """A name that is a message, half a message and a link by turns: what is taken is a whole message, every time."""
    process = daemon(relay).start()
    new = process.queue / "new"
    whole = eml("whole") + b"x" * 60_000 + b"\nend\n"
    for number in range(30):
        (new / ".half").write_bytes(whole[:30_000])
        (new / ".half").rename(new / ".open")
        with open(new / ".open", "ab") as file:
            (new / ".open").rename(new / "swapped.eml")
            (new / ".link").symlink_to("/etc/passwd")
            (new / ".link").rename(new / "swapped.eml")
            file.write(whole[30_000:])
        (new / ".whole").write_bytes(whole)
        (new / ".whole").rename(new / "swapped.eml")
        process.drop(f"good-{number}.eml", eml(f"good-{number}"))
    for number in range(30):
        assert process.result(f"good-{number}")["state"] == "delivered"
    left_new(process)
    arrived = [a.content for a in relay.wait_for(31) if a.recipients == ["whole@b.example"]]
    assert arrived
    assert all(content.endswith(b"x\r\nend\r\n") for content in arrived)
    assert process.stop() == 0
    assert not told(process, "unhandled_error")


ENDS = [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n.\r\n", b"\r\n\0.\r\n"]


def test_no_sequence_in_a_message_ends_it_early_at_a_lenient_server(daemon: MakeDaemon) -> None:
    """SMTP smuggling: the server takes any LF for a line's end; what comes after a smuggled end stays content. With NUL
    the message is refused."""
    with Hostile() as server:
        process = daemon(routes=[{"domains": ["*"], "relay": f"smtp://127.0.0.1:{server.port}", "tls": "none"}]).start()
        for number, end in enumerate(ENDS):
            smuggled = end + b"MAIL FROM:<eve@e.example>\r\nRCPT TO:<eve@e.example>\r\nDATA\r\nSubject: mine\r\n" + end
            process.drop(f"m{number}.eml", eml(f"m{number}") + smuggled + b"rest\n")
        for number, end in enumerate(ENDS):
            if b"\0" in end:
                assert "NUL" in eventually(lambda name=f"m{number}.eml": reason(process, name))
            else:
                assert process.result(f"m{number}")["state"] == "delivered"
        assert server.messages == len(ENDS) - 1
        assert not [line for talk in server.conversations for line in talk.heard if "eve" in line]
