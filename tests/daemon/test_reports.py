"""Reports on the whole road: as the relay gets them from the daemon, and as a parser of bounces reads them there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from email import message_from_bytes
from email.policy import default
from typing import Any

from flufl.bounce import all_failures

from tests.fakes.process import DaemonProcess
from tests.fakes.relay import Arrival, Relay

LETTER = {"from": "Shop <shop@example.org>", "subject": "Your order", "text": "Thank you."}


def reports(arrivals: list[Arrival]) -> list[Arrival]:
    """Those from the null sender."""
    return [arrival for arrival in arrivals if arrival.sender == ""]


def status_of(report: Arrival) -> list[dict[str, str]]:
    """What its part for programs says of each recipient."""
    status = list(message_from_bytes(report.content, policy=default).iter_parts())[1]
    return [dict(block.items()) for block in status.get_payload()[1:]]


def test_who_failed_together_is_read_back_from_the_bounce_that_the_relay_got(
    daemon: Callable[..., DaemonProcess], relay: Relay
) -> None:
    """Two of three recipients refused: one bounce, to the sender, about these two."""
    relay.script["bob@b.example"] = ["550-5.1.1 no such\r\n550 5.1.1 person \x1b[2J"]
    relay.script["eve@xn--bcher-kva.example"] = ["552 5.2.2 full"]
    process = daemon(relay).start()
    to = ["ann@a.example", "bob@b.example", "eve@bücher.example"]
    process.drop("order.json", json.dumps({**LETTER, "to": to}))
    assert process.result("order")["state"] == "partly"
    (bounce,) = reports(relay.wait_for(2))
    assert process.stop() == 0

    assert bounce.recipients == ["shop@example.org"]
    late, lost = all_failures(message_from_bytes(bounce.content))
    assert (late, lost) == (frozenset(), {b"bob@b.example", b"eve@xn--bcher-kva.example"})
    said = [(block["Status"], block["Diagnostic-Code"]) for block in status_of(bounce)]
    assert said == [
        ("5.1.1", r"smtp; 550 5.1.1 no such person \x1b[2J"),
        ("5.2.2", "smtp; 552 5.2.2 full"),
    ]
    assert len(relay.arrivals) == 2


def test_a_late_message_is_warned_of_and_then_bounced_with_the_servers_own_words(
    daemon: Callable[..., DaemonProcess], relay: Relay
) -> None:
    """A delay is read back as one, and the end of the time as a failure; what the server said is in both."""
    relay.script["bob@b.example"] = ["450 4.2.0 greylisted"] * 100
    process = daemon(relay, retry={"delays": ["1s"], "jitter": 0.0, "warn_after": "1s"}).start()
    process.drop("order.json", json.dumps({**LETTER, "to": "bob@b.example", "expires": "3s"}))
    result = process.result("order")
    warning, bounce = reports(relay.wait_for(2))
    assert process.stop() == 0

    assert all_failures(message_from_bytes(warning.content)) == ({b"bob@b.example"}, frozenset())
    assert all_failures(message_from_bytes(bounce.content)) == (frozenset(), {b"bob@b.example"})
    (late,), (lost,) = status_of(warning), status_of(bounce)
    assert (late["Action"], late["Status"], "Will-Retry-Until" in late) == ("delayed", "4.2.0", True)
    assert (lost["Action"], lost["Status"], "Will-Retry-Until" in lost) == ("failed", "4.4.7", False)
    assert late["Diagnostic-Code"] == lost["Diagnostic-Code"] == "smtp; 450 4.2.0 greylisted"
    recipient = result["recipients"][0]
    assert (recipient["state"], recipient["code"], recipient["enhanced"]) == ("failed", 450, "4.4.7")
    assert recipient["text"] == "delivery time expired; the last try said: 4.2.0 greylisted"


def test_a_bounce_that_fails_is_kept_told_and_counted(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """Neither bounced nor forgotten: `deferd queue` shows it with what the server said of it."""
    relay.script["bob@b.example"] = ["550 5.1.1 no such person"]
    relay.script["shop@example.org"] = ["554 5.7.1 no bounces here"]
    process = daemon(relay).start()
    process.drop("order.json", json.dumps({**LETTER, "to": "bob@b.example"}))
    told = process.wait_for("report_failed")
    assert (told["recipient"], told["code"], told["enhanced"]) == ("shop@example.org", 554, "5.7.1")
    process.wait_for("job_finished", id=told["id"])
    status, metrics = process.get("/metrics")
    assert status == 200
    assert "deferd_reports_failed_total 1.0" in metrics
    assert "deferd_bounces_total 1.0" in metrics

    def queue(*arguments: str) -> Any:
        command = [sys.executable, "-m", "service.cli", "queue", *arguments, "-c", str(process.config), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)

    assert queue("list") == []
    shown = queue("show", told["id"])
    listed = next(job for job in queue("list", "--state", "failed") if job["id"] == told["id"])
    assert {name: shown[name] for name in listed} == listed
    assert (shown["name"], shown["state"]) == ("order-bounce", "failed")
    assert shown["recipients"][0]["text"] == "no bounces here"
    assert not (process.queue / "results" / "order-bounce.json").exists()
    assert process.stop() == 0
    assert relay.arrivals == []
