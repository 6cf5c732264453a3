"""The whole road, for real: a daemon as a process, files dropped into its directory, aiosmtpd at the other end."""

from __future__ import annotations

import email
import email.policy
import importlib.util
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.process import DaemonProcess
from tests.fakes.relay import Relay

EML = b"From: ann@a.example\nTo: bob@b.example\nSubject: hello\n\nGood morning.\n.\n..two dots\n"
JSON = json.dumps(
    {"from": "Ann <ann@a.example>", "to": ["bob@b.example", "Eve <eve@b.example>"], "subject": "Ünïcode", "text": "Hi."}
)
YAML = "sender: ann@a.example\nrecipients: [bob@b.example]\nmessage: |\n  Subject: raw\n\n  As it is.\n"


def drop_one_of_each(process: DaemonProcess) -> None:
    process.drop("first.eml", EML)
    process.drop("second.json", JSON)
    process.drop("third.yaml", YAML)


WAYS = {  # the scheme; whether the relay has TLS, asks for a password; the route's policy
    "plain": ("smtp", False, False, "none"),
    "plain with AUTH": ("smtp", False, True, "none"),
    "STARTTLS": ("smtp", True, False, "verify"),
    "STARTTLS with AUTH": ("smtp", True, True, "verify"),
    "TLS from the start": ("smtps", True, False, "verify"),
    "TLS from the start with AUTH": ("smtps", True, True, "verify"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_job_of_each_kind_arrives(
    way: str, daemon: Callable[..., DaemonProcess], server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    """An .eml, a .json and a .yaml job arrive, however the relay is spoken to."""
    scheme, secure, login, policy = WAYS[way]
    relay = Relay(
        tls=server_tls if secure else None,
        implicit=scheme == "smtps",
        password=("deferd", "pass wörd") if login else None,
    )
    with relay:
        route = {"domains": ["*"], "relay": f"{scheme}://127.0.0.1:{relay.port}", "tls": policy}
        route |= {"ca_file": str(ca_file)} if secure else {}
        route |= {"username": "deferd", "password": "pass wörd"} if login else {}
        process = daemon(routes=[route]).start()
        drop_one_of_each(process)
        arrivals = relay.wait_for(3)
        results = [process.result(name) for name in ("first", "second", "third")]
        assert process.stop() == 0

    assert [result["state"] for result in results] == ["delivered"] * 3
    assert {arrival.secure for arrival in arrivals} == {secure}
    by_subject = {email.message_from_bytes(a.content, policy=email.policy.default)["Subject"]: a for a in arrivals}
    assert set(by_subject) == {"hello", "Ünïcode", "raw"}
    assert by_subject["hello"].content.endswith(b"\r\n\r\nGood morning.\r\n.\r\n..two dots\r\n")
    assert by_subject["Ünïcode"].recipients == ["bob@b.example", "eve@b.example"]
    assert by_subject["raw"].sender == "ann@a.example"
    assert not any("wörd" in str(event) for event in process.events)


def test_a_result_has_the_contracts_shape(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """A result file has exactly the fields of the contract, and what the server said of each recipient."""
    relay.script["eve@b.example"] = ["550 5.1.1 no such person"]
    process = daemon(relay).start()
    process.drop("order.json", json.dumps({**json.loads(JSON), "tags": {"order": 17}}))
    result = process.result("order")

    assert set(result) == {
        "id",
        "name",
        "state",
        "attempts",
        "next_attempt",
        "recipients",
        "accepted_at",
        "finished_at",
        "tags",
    }
    assert (result["name"], result["state"], result["tags"]) == ("order", "partly", {"order": 17})
    assert result["next_attempt"] is None
    bob, eve = result["recipients"]
    assert set(eve) == {"address", "state", "code", "enhanced", "text", "host", "phase", "at"}
    assert (bob["address"], bob["state"], bob["code"], bob["phase"]) == ("bob@b.example", "delivered", 250, "confirm")
    assert (eve["state"], eve["code"], eve["enhanced"], eve["phase"]) == ("failed", 550, "5.1.1", "rcpt")
    bounce = relay.wait_for(2)[1]
    assert (bounce.sender, bounce.recipients) == ("", ["ann@a.example"])


def test_a_file_that_is_no_job_is_kept_with_the_reason(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """A broken job moves to rejected/ with a .why; the jobs beside it go on."""
    process = daemon(relay).start()
    process.drop("broken.json", '{"from": "ann@a.example", "to": ["bob@b.example\\r\\nRCPT TO:<eve@b.example>"]}')
    process.drop("fine.eml", EML)
    assert process.result("fine")["state"] == "delivered"
    process.wait_for("job_rejected", name="broken.json")
    assert (process.queue / "rejected" / "broken.json").exists()
    assert "bob@b.example" in (process.queue / "rejected" / "broken.json.why").read_text()
    assert not list((process.queue / "new").iterdir())


def test_a_refused_message_is_offered_again_after_its_delay(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """A 450 makes a recipient wait by the retry schedule; then it is delivered."""
    relay.script["bob@b.example"] = ["450 4.2.0 greylisted"]
    process = daemon(relay, retry={"delays": ["1s"], "jitter": 0.0}).start()
    process.drop("first.eml", EML)
    waiting = process.result("first", until=lambda result: result["attempts"] == 1)
    assert (waiting["state"], waiting["recipients"][0]["code"]) == ("queued", 450)
    assert waiting["next_attempt"] is not None
    assert process.result("first")["state"] == "delivered"
    assert process.wait_for("deferred", recipient="bob@b.example")["delay"] == pytest.approx(1, abs=0.1)


def messages_of_cpython() -> list[Path]:
    spec = importlib.util.find_spec("test")
    folders = [Path(place) / "test_email" / "data" for place in (spec.submodule_search_locations or ())] if spec else []
    return sorted(path for folder in folders for path in folder.glob("*.txt"))


def test_messages_of_every_shape_arrive_octet_for_octet(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """CPython's own collection of odd messages arrives unchanged, save for line ends, Bcc, Date and Message-ID."""
    messages = messages_of_cpython()
    if not messages:
        pytest.skip("this Python was installed without its own tests")
    process = daemon(relay).start()
    for path in messages:
        process.drop(
            f"{path.stem}.eml",
            f"X-Sender: {path.stem}@a.example\nX-Receiver: bob@b.example\n".encode() + path.read_bytes(),
        )
    arrived = {arrival.sender.partition("@")[0]: arrival.content for arrival in relay.wait_for(len(messages))}
    for path in messages:
        sent = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        if not sent.endswith(b"\r\n"):
            sent += b"\r\n"
        assert arrived[path.stem].endswith(sent), path.name
        added = arrived[path.stem].removesuffix(sent)
        assert all(line.split(b":")[0] in (b"Date", b"Message-ID") for line in added.splitlines() if line), path.name


def test_a_thousand_jobs_to_a_slow_server_share_connections(daemon: Callable[..., DaemonProcess]) -> None:
    """1,000 jobs to a server that takes 50 ms for each step arrive in a small fraction of the serial time, and the
    daemon answers within 50 ms all the while."""
    step, jobs = 0.05, 1000
    with Relay(delay=step) as relay:
        process = daemon(relay).start()
        for n in range(jobs):
            process.drop(f"job-{n}.eml", EML)
        began = time.monotonic()
        answers = []
        while len(relay.arrivals) < jobs:
            asked = time.monotonic()
            assert process.get("/healthz")[0] == 200
            answers.append(time.monotonic() - asked)
            assert asked - began < 60
        took = time.monotonic() - began
        assert process.stop() == 0
    serial = jobs * 3 * step
    assert took < serial / 5
    assert 2 <= relay.most_connections <= 20
    answers.sort()
    assert answers[len(answers) * 19 // 20] < 0.05  # all but a few: other tests share this machine's cores
