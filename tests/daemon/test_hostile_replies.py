"""What a server said, wherever it goes: escaped, capped, and acted on by no terminal, browser or mail reader."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from service.smtp.reply import TEXT_LIMIT
from tests.fakes.process import DaemonProcess
from tests.fakes.relay import Relay

SAID = {
    "escape": b"\x1b[2J\x1b]0;owned\x07 no",
    "nul": b"a\0b no",
    "controls": bytes(range(1, 10)) + b"\x0b\x0c" + bytes(range(14, 32)) + b"\x7f no",
    "bidi": "\u202e\u2066\u200f no \u200b\u200d\ufeff".encode(),
    "octets": bytes(range(128, 256)) + b" no",
    "markup": b"<script>alert(1)</script> [red]no[/red] &amp;",
    "long": b"\x1b" * 8000,
}
LOUD = {code for code in (*range(32), *range(0x7F, 0x100)) if code not in (0x0A, 0x0D)}
"""Octets that no place may show, but for line ends; what is written here is ASCII."""


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What each place that shows an answer shows, after a server has said all of `SAID`."""
    with Relay() as relay:
        for name, said in SAID.items():
            relay.script[f"{name}@b.example"] = [b"550 5.1.1 " + said]  # type: ignore[list-item]  # aiosmtpd sends it so
            relay.script[f"late-{name}@b.example"] = [b"450-4.2.0 " + said + b"\r\n450 4.2.0 later"]  # type: ignore[list-item]
        settings = {
            "routes": [{"domains": ["*"], "relay": f"smtp://127.0.0.1:{relay.port}", "tls": "none"}],
            "log": {"format": "json", "level": "debug"},
        }
        with DaemonProcess(tmp_path_factory.mktemp("hostile"), settings) as process:
            return played(process.start(), relay)


def played(process: DaemonProcess, relay: Relay) -> dict[str, bytes]:
    """Drop a job for those who are refused and one for those who are put off; gather what is shown of them."""
    for name, prefix in (("refused", ""), ("late", "late-")):
        to = [f"{prefix}{one}@b.example" for one in SAID]
        process.drop(f"{name}.json", json.dumps({"from": "shop@example.org", "to": to, "text": "x"}))
    refused = process.result("refused")
    process.result("late", until=lambda result: result["attempts"] == 1)
    (bounce,) = relay.wait_for(1)
    process.wait_for("delivered", recipient="shop@example.org")
    shown = {
        "result": (process.queue / "results" / "refused.json").read_bytes(),
        "late result": (process.queue / "results" / "late.json").read_bytes(),
        "bounce": bounce.content,
        "page": process.get("/")[1].encode(),
        "list": command(process, "list"),
        "list of failed": command(process, "list", "--state", "failed"),
        "show": command(process, "show", refused["id"]),
        "show as JSON": command(process, "show", refused["id"], "--json"),
        "list on a terminal": on_a_terminal(process, "list", "--state", "failed"),
        "show on a terminal": on_a_terminal(process, "show", refused["id"]),
        "log": "".join(f"{fact}\n" for event in process.events for fact in event.values()).encode(),
    }
    assert process.stop() == 0
    return shown | {"database": b"".join(path.read_bytes() for path in database(process.queue))}


def database(directory: Path) -> list[Path]:
    """The files of the queue itself."""
    return sorted(directory.glob("queue.db*"))


def command(process: DaemonProcess, *words: str) -> bytes:
    """What `deferd queue` prints where no terminal is."""
    return subprocess.run(queue(process, *words), check=True, capture_output=True, timeout=30).stdout


def queue(process: DaemonProcess, *words: str) -> list[str]:
    return [sys.executable, "-m", "service.cli", "queue", *words, "-c", str(process.config)]


def on_a_terminal(process: DaemonProcess, *words: str) -> bytes:
    """What `deferd queue` prints on a terminal that has no sequences, so that none in it can be its own."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        queue(process, *words), stdout=its, stdin=its, env={**process.environ, "TERM": "dumb", "COLUMNS": "160"}
    ) as running:
        os.close(its)
        printed = b"".join(iter(lambda: read_all(ours), b""))
        os.close(ours)
    assert running.returncode == 0
    return printed


def read_all(terminal: int) -> bytes:
    """The next octets; none where the other side has hung up, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


PLACES = [
    *("result", "late result", "bounce", "page", "list", "list of failed", "show", "show as JSON"),
    *("list on a terminal", "show on a terminal", "log", "database"),
]
TEXTS = [place for place in PLACES if place != "database"]


@pytest.mark.parametrize("place", TEXTS)
def test_nothing_that_acts_on_a_reader_gets_anywhere(place: str, scene: dict[str, bytes]) -> None:
    """No control, no octet that is not ASCII: all that is unseen is spelt out."""
    if place == "page":  # whose own words have a dash that is not ASCII
        assert all(line.isprintable() for line in scene[place].decode().split("\n"))
        return
    if place.endswith("terminal"):  # whose table has lines drawn in it
        assert all(line.isprintable() for line in scene[place].decode().replace("\r\n", "\n").split("\n"))
        return
    assert not LOUD & set(scene[place])


@pytest.mark.parametrize("place", PLACES)
def test_what_was_said_is_spelt_out(place: str, scene: dict[str, bytes]) -> None:
    """Else the test above would see nothing because nothing is shown."""
    assert b"x1b" in scene[place].replace(b"\r\n", b"")
    for name, said in SAID.items():
        assert said not in scene[place] or name == "markup"  # which is text, and stays it


def test_each_answer_in_a_result_is_ascii_and_capped(scene: dict[str, bytes]) -> None:
    """The result file is what programs read on from."""
    texts = {one["address"].partition("@")[0]: one["text"] for one in json.loads(scene["result"])["recipients"]}
    assert set(texts) == set(SAID)
    assert all(text.isascii() and text.isprintable() and 0 < len(text) <= TEXT_LIMIT for text in texts.values())
    assert texts["escape"] == r"\x1b[2J\x1b]0;owned\x07 no"
    assert texts["nul"] == r"a\x00b no"
    assert texts["markup"] == "<script>alert(1)</script> [red]no[/red] &amp;"
    assert len(texts["long"]) == TEXT_LIMIT


def test_the_page_takes_nothing_for_markup(scene: dict[str, bytes]) -> None:
    """It stands there as it was said."""
    assert b"<script" not in scene["page"]
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in scene["page"]


def test_the_bounce_has_no_field_or_part_that_the_server_wrote(scene: dict[str, bytes]) -> None:
    """Three parts, a block for each recipient, and lines that mail can carry."""
    bounce = message_from_bytes(scene["bounce"], policy=default)
    human, status, _ = bounce.iter_parts()
    blocks = status.get_payload()
    assert len(blocks) == 1 + len(SAID)
    assert {len(block) for block in blocks[1:]} == {6}
    assert all(value.isprintable() and value.isascii() for block in blocks for value in block.values())
    assert r"\x1b[2J" in human.get_content()
    assert max(map(len, scene["bounce"].split(b"\r\n"))) <= 998
