"""The real daemon against real servers that mean harm: bounded in time, in memory and in what is believed.

All servers of a test are met at once, by one daemon, which delivers to an honest relay all the while.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hostile import HUNDRED_MB, Hostile, deaf, drip, flood, hang_up, reset, silence
from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay
from tests.fakes.witness import eml, pid, told

MakeDaemon = Callable[..., DaemonProcess]
ONE_SECOND = dict.fromkeys(("connect", "greeting", "command", "tls", "data", "write", "confirm"), "1s")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def meet(
    make: MakeDaemon,
    relay: Relay,
    servers: Mapping[str, Hostile],
    tls: str = "none",
    login: tuple[str, str] | None = None,
    **more: Any,
) -> DaemonProcess:
    """A daemon whose mail to anybody at NAME.example goes to the server of that name, all other to the relay."""
    password = {"username": login[0], "password": login[1]} if login else {}
    routes = [
        {"domains": [f"{name}.example"], "relay": f"smtp://127.0.0.1:{server.port}", "tls": tls, **password}
        for name, server in servers.items()
    ]
    routes.append({"domains": ["*"], "relay": f"smtp://127.0.0.1:{relay.port}", "tls": "none"})
    more.setdefault("retry", {"site_rest": {"first": "5m", "longest": "5m"}})
    return make(routes=routes, **more).start()


def drop_for(process: DaemonProcess, name: str, number: int = 1, content: bytes = b"Hello.\n") -> None:
    process.drop(f"{name}-{number}.eml", f"From: ann@a.example\nTo: bob@{name}.example\n\n".encode() + content)


def the_relay_is_served(process: DaemonProcess, name: str) -> None:
    process.drop(f"{name}.eml", eml(name))
    assert process.result(name)["state"] == "delivered"


def recipient(process: DaemonProcess, name: str, number: int = 1) -> dict[str, Any]:
    """How the job for NAME.example stands after its first try."""
    tried = process.result(f"{name}-{number}", until=lambda result: result["recipients"][0]["phase"] is not None)
    found: dict[str, Any] = tried["recipients"][0]
    return found


def took(process: DaemonProcess, name: str) -> float:
    """Seconds between the beginning and the end of the first attempt for NAME.example, by the log."""
    started = process.wait_for("attempt_started", recipients=[f"bob@{name}.example"])
    ended = process.wait_for("deferred", recipient=f"bob@{name}.example")
    begin, end = (datetime.fromisoformat(event["timestamp"]) for event in (started, ended))
    return (end - begin).total_seconds()


def memory(process: DaemonProcess, what: str) -> int:
    """Octets: `VmRSS` now, `VmHWM` at the most so far."""
    lines = Path(f"/proc/{pid(process)}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024


FLOODS = {  # what one server each pours out: the phases that the outcome may name
    "greetinglines": ({"greeting"}, {"greeting": flood(b"220-and another thing\r\n")}),
    "greetingline": ({"greeting"}, {"greeting": flood(b"x", b"220 ")}),
    "greetingnul": ({"greeting"}, {"greeting": flood(b"\0")}),
    "ehlolines": ({"ehlo"}, {"ehlo": flood(b"250-X-AND-MORE\r\n")}),
    "maillines": ({"mail"}, {"mail": flood(b"250-ok\r\n")}),
    "mailreplies": ({"mail", "rcpt"}, {"mail": flood(b"250 ok\r\n")}),
    "rcptline": ({"rcpt"}, {"rcpt": flood(b"\xff\x1b")}),
    "dataanswers": ({"data", "body"}, {"data": flood(b"354 go on\r\n")}),
    # its last octets may be out already when the flood is heard
    "inthecontent": ({"body", "confirm"}, {"data": flood(b"250-what is it\r\n", b"354 go ahead\r\n")}),
    "confirmation": ({"confirm"}, {"dot": flood(b"250-taken, and let me tell you\r\n")}),
}


def test_a_hundred_megabytes_of_anything_are_not_heard_to_the_end(
    daemon: MakeDaemon, relay: Relay, stack: ExitStack
) -> None:
    """In any phase: the connection is cut at a reply's limit, memory stays as it was, the honest relay is served."""
    servers = {name: stack.enter_context(Hostile(**odd)) for name, (_, odd) in FLOODS.items()}
    process = meet(daemon, relay, servers)
    the_relay_is_served(process, "before")
    before = memory(process, "VmRSS")
    for name in servers:
        drop_for(process, name)
    the_relay_is_served(process, "meanwhile")
    for name, (phases, _) in FLOODS.items():
        found = recipient(process, name)
        assert found["state"] == "waiting", name
        assert found["phase"] in phases, name
        assert len(found["text"]) < 1000
        talk = servers[name].conversations[0]
        eventually(lambda talk=talk: talk.ended)
        assert talk.said < HUNDRED_MB / 4, name  # what the kernel's buffers took; the daemon read less
    assert memory(process, "VmHWM") - before < 32 << 20
    assert process.get("/healthz")[0] == 200
    in_doubt = [event["recipient"] for event in told(process, "in_doubt")]
    ended = {name for name in servers if recipient(process, name)["phase"] == "confirm"}
    assert sorted(in_doubt) == sorted(f"bob@{name}.example" for name in ended)
    assert process.stop() == 0
    assert not told(process, "unhandled_error")


def test_a_flood_on_a_kept_connection_ends_it(daemon: MakeDaemon, relay: Relay) -> None:
    """The message before it stays delivered, nobody is blamed, nothing is read to the end."""

    def taken(talk: Any) -> None:
        talk.say(b"250 taken\r\n")
        time.sleep(0.2)
        flood(b"250 and again\r\n")(talk)

    with Hostile(once=True, dot=taken) as server:
        process = meet(daemon, relay, {"idle": server}, timeouts={"idle": "30s"})
        drop_for(process, "idle")
        assert process.result("idle-1")["state"] == "delivered"
        eventually(lambda: server.conversations[0].ended)
        assert server.conversations[0].said < HUNDRED_MB / 4
        drop_for(process, "idle", 2)
        assert process.result("idle-2")["state"] == "delivered"
        assert [talk.messages for talk in server.conversations] == [1, 1]


DRIPS = {  # the words of one server each: the phase that the outcome names
    "greeting": ("greeting", {"greeting": drip(b"220-")}),
    "greetinglines": ("greeting", {"greeting": drip(b"220-x\r\n")}),
    "ehlo": ("ehlo", {"ehlo": drip(b"250-")}),
    "mail": ("mail", {"mail": drip(b"250-ok\r\n")}),
    "rcpt": ("rcpt", {"rcpt": drip(b"250-")}),
    "data": ("data", {"data": drip(b"354-")}),
    "confirm": ("confirm", {"dot": drip(b"250-")}),
    "silentgreeting": ("greeting", {"greeting": silence}),
    "silentehlo": ("ehlo", {"ehlo": silence}),
    "silentconfirm": ("confirm", {"dot": silence}),
}


def test_octets_that_drip_do_not_renew_a_deadline(daemon: MakeDaemon, relay: Relay, stack: ExitStack) -> None:
    """Each phase ends when its time is over, be the server silent or dripping; the honest relay is served."""
    servers = {name: stack.enter_context(Hostile(**odd)) for name, (_, odd) in DRIPS.items()}
    process = meet(daemon, relay, servers, timeouts=ONE_SECOND)
    for name in servers:
        drop_for(process, name)
    the_relay_is_served(process, "meanwhile")
    for name, (phase, _) in DRIPS.items():
        found = recipient(process, name)
        assert (found["state"], found["phase"], found["code"]) == ("waiting", phase, None), name
        assert 0.9 < took(process, name) < 5, name
        eventually(lambda talk=servers[name].conversations[0]: talk.ended)


def test_a_tls_handshake_that_stalls_or_drips_ends_in_time(daemon: MakeDaemon, relay: Relay, stack: ExitStack) -> None:
    """`timeouts.tls` bounds all of it, and nothing was said in the clear after STARTTLS."""
    offer = b"250-mx.test\r\n250 STARTTLS\r\n"

    def then_drip(talk: Any) -> None:
        talk.say(b"220 go ahead\r\n")
        time.sleep(0.2)
        drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")(talk)  # the beginning of a long record

    def then_silence(talk: Any) -> None:
        talk.say(b"220 go ahead\r\n")
        silence(talk)

    servers = {
        "drips": stack.enter_context(Hostile(ehlo=offer, starttls=then_drip)),
        "stalls": stack.enter_context(Hostile(ehlo=offer, starttls=then_silence)),
    }
    process = meet(daemon, relay, servers, tls="encrypt", timeouts=ONE_SECOND)
    for name, server in servers.items():
        drop_for(process, name)
        found = recipient(process, name)
        assert (found["phase"], found["text"]) == ("tls", "the TLS handshake took too long")
        assert 0.9 < took(process, name) < 5
        assert server.conversations[0].heard == ["EHLO client.test", "STARTTLS"]


OFFER = b"250-mx.test\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n"
STRIPPED = {  # what is between us and the server, or the server itself, does with STARTTLS
    "stripped": {"ehlo": b"250-mx.test\r\n250 AUTH PLAIN LOGIN\r\n"},
    "refused": {"ehlo": OFFER, "starttls": b"454 4.7.0 not now\r\n"},
    "unknown": {"ehlo": OFFER, "starttls": b"502 5.5.1 what is that\r\n"},
    "wrong": {"ehlo": OFFER, "starttls": b"250 of course\r\n"},
    "injected": {"ehlo": OFFER, "starttls": b"220 go ahead\r\n250 2.0.0 trust me\r\n"},
    "intheclear": {"ehlo": OFFER, "starttls": b"220 go ahead\r\n"},  # and then it goes on in the clear
    "hangsup": {"ehlo": OFFER, "starttls": hang_up},
}


@pytest.mark.parametrize("policy", ["encrypt", "verify"])
def test_neither_mail_nor_password_ever_leaves_in_the_clear_where_tls_is_required(
    daemon: MakeDaemon, relay: Relay, stack: ExitStack, policy: str
) -> None:
    """STARTTLS stripped, refused, injected or ignored: the server has heard nothing but who we are."""
    servers = {name: stack.enter_context(Hostile(**odd)) for name, odd in STRIPPED.items()}
    process = meet(daemon, relay, servers, policy, timeouts=ONE_SECOND, login=("deferd", "secret"))
    for name in servers:
        drop_for(process, name)
    the_relay_is_served(process, "meanwhile")
    for name, server in servers.items():
        found = recipient(process, name)
        assert (found["state"], found["phase"]) == ("waiting", "tls"), name
        eventually(lambda talk=server.conversations[0]: talk.ended)
        said = [line for talk in server.conversations for line in talk.heard]
        assert said[0] == "EHLO client.test"
        assert {line.partition(" ")[0] for line in said}.isdisjoint({"MAIL", "RCPT", "DATA", "AUTH"}), name
        assert not any("@" in line and ".example" in line for line in said)


def test_a_refused_password_is_not_tried_over_and_over(daemon: MakeDaemon, relay: Relay) -> None:
    """535 to each AUTH: the site rests, for all its mail, lest the account be locked; nothing is said after it."""
    with Hostile(ehlo=b"250-mx.test\r\n250 AUTH PLAIN\r\n", auth=b"535 5.7.8 no\r\n") as server:
        process = meet(daemon, relay, {"auth": server}, login=("deferd", "secret"))
        drop_for(process, "auth")
        found = recipient(process, "auth")
        assert (found["state"], found["phase"], found["code"]) == ("waiting", "auth", 535)
        for number in range(2, 20):
            drop_for(process, "auth", number)
        the_relay_is_served(process, "meanwhile")
        process.result("auth-19", until=lambda result: result["state"] == "queued")
        assert len(server.conversations) == 1
        assert not any(line.startswith("MAIL") for line in server.conversations[0].heard)
        process.stop()
        assert "secret" not in str(process.events)


def test_a_reader_that_never_reads_is_given_up(daemon: MakeDaemon, relay: Relay) -> None:
    """Zero window: content that does not go out for `timeouts.write` is the host's fault, and in no doubt; it is read
    a piece at a time, so that memory does not grow with what waits to go out."""
    with Hostile(body=deaf) as server:
        process = meet(daemon, relay, {"deaf": server}, timeouts={"write": "1s"})
        drop_for(process, "deaf", content=(b"x" * 76 + b"\n") * 400_000)
        assert recipient(process, "deaf")["phase"] == "body"
        assert 0.9 < took(process, "deaf") < 8
        assert told(process, "in_doubt") == []
        the_relay_is_served(process, "after")


STUCK = {
    "greeting": {"greeting": silence},
    "ehlo": {"ehlo": silence},
    "dripping": {"mail": drip(b"250-")},
    "content": {"body": deaf},
    "confirm": {"dot": silence},
    "goodbye": {"quit": silence},
}


def test_sigterm_ends_the_daemon_in_time_whatever_the_servers_do(
    daemon: MakeDaemon, relay: Relay, stack: ExitStack
) -> None:
    """With `timeouts.drain` of 2 s, and a server that is stuck in each phase: exit 0 within it, and a message whose
    final dot was out is in doubt."""
    servers = {name: stack.enter_context(Hostile(**odd)) for name, odd in STUCK.items()}
    process = meet(daemon, relay, servers, timeouts={"drain": "2s", "idle": "30s"})
    for name in servers:
        drop_for(process, name, content=(b"x" * 76 + b"\n") * (400_000 if name == "content" else 1))
    eventually(lambda: [name for name, server in servers.items() if not server.conversations] == [])
    eventually(lambda: servers["confirm"].messages and servers["goodbye"].messages)
    process.result("goodbye-1")
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 2 + 3  # the rest is the end of Python, on a busy machine
    assert [event["recipient"] for event in told(process, "in_doubt")] == ["bob@confirm.example"]


def test_sigterm_does_not_wait_for_servers_that_have_not_asked_for_the_message(
    daemon: MakeDaemon, relay: Relay, stack: ExitStack
) -> None:
    """They have a second; then the conversation is ended, and the message waits untried for the next start."""
    words = {"greeting": silence, "ehlo": silence, "mail": drip(b"250-"), "rcpt": silence, "data": silence}
    servers = {word: stack.enter_context(Hostile(**{word: odd}, once=True)) for word, odd in words.items()}
    process = meet(daemon, relay, servers)
    for name in servers:
        drop_for(process, name)
    eventually(lambda: [name for name, server in servers.items() if not server.conversations] == [])
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 1 + 5  # of the 25 s; the rest is the end of Python, on a busy machine
    assert [told(process, event) for event in ("deferred", "in_doubt", "site_resting")] == [[], [], []]
    process.start()
    for name in servers:
        assert process.result(f"{name}-1")["state"] == "delivered"


UNEXPECTED = {  # what a server's first connection does: what the first message's recipient hears of it
    "hello": {"greeting": b"hello there\r\n"},
    "code199": {"ehlo": b"199 ok\r\n"},
    "code999": {"mail": b"999 ok\r\n"},
    "nocode": {"rcpt": b"ok\r\n"},
    "twocodes": {"mail": b"250-ok\r\n251 ok\r\n"},
    "nul": {"rcpt": b"250\0ok\r\n"},
    "escape": {"mail": b"\x1b[2J\x1b[31m250 ok\r\n"},
    "eightbit": {"mail": b"\xb2\xb5\xb0 ok\r\n"},
    "early": {"greeting": b"220 mx.test\r\n250 mx.test\r\n250 ok\r\n"},
    "twice": {"rcpt": b"250 ok\r\n250 ok\r\n"},
    "wrongstep": {"data": b"250 ok\r\n"},
    "goahead": {"mail": b"354 go ahead\r\n"},
    "inthecontent": {"data": b"354 go ahead\r\n250 thanks, enough\r\n"},
    "longline": {"ehlo": b"250 " + b"x" * 9000 + b"\r\n"},
    "longreply": {"ehlo": b"250-" + b"x" * 1000 + b"\r\n" + (b"250-" + b"x" * 1000 + b"\r\n") * 40},
    "closes": {"rcpt": hang_up},
    "resets": {"mail": reset},
    "takesleave": {"mail": b"421 4.3.2 going away\r\n"},
    "nonsenseconfirmed": {"dot": b"taken!\r\n"},
    "afterwards": {"dot": b"250 taken\r\n250 and again\r\n"},
    "closesafter": {"dot": hang_up},
}


def test_no_connection_is_used_again_after_anything_unexpected(
    daemon: MakeDaemon, relay: Relay, stack: ExitStack
) -> None:
    """Whatever came of the first message: nothing more is said on its connection, not even QUIT where it makes no
    sense, and the next goes on a new one. What was said is kept as printable ASCII."""
    servers = {name: stack.enter_context(Hostile(once=True, **odd)) for name, odd in UNEXPECTED.items()}
    process = meet(
        daemon,
        relay,
        servers,
        timeouts={"idle": "30s"},
        retry={"site_rest": {"first": "100ms", "longest": "100ms"}, "delays": ["1s"], "jitter": 0.0},
    )
    for name in servers:
        drop_for(process, name)
    for name in servers:
        assert process.result(f"{name}-1")["state"] == "delivered", name
        drop_for(process, name, 2)
    for name, server in servers.items():
        assert process.result(f"{name}-2")["state"] == "delivered", name
        first, second, *more = server.conversations
        assert first.ended is not None, name
        assert first.messages == (1 if name in ("nonsenseconfirmed", "afterwards", "closesafter") else 0), name
        assert len([line for line in first.heard if line.startswith("MAIL")]) <= 1, name
        assert second.messages + sum(talk.messages for talk in more) == (1 if name == "afterwards" else 2), name
    doubts = {event["recipient"].removesuffix(".example") for event in told(process, "in_doubt")}
    assert doubts == {"bob@nonsenseconfirmed", "bob@closesafter"}
    for event in process.events:
        assert json.dumps(event).isprintable()
        assert "\x1b" not in str(event)
        assert "\0" not in str(event)
