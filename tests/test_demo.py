"""The demo, as a stranger runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_demo_shows_each_chain_and_ends_well(tmp_path: Path) -> None:
    """One job goes through, one is tried again by its errback after a second, one has a recipient refused."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    seen: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if match := re.match(r" *(\d+) ms  (\S+) +(\S+)", line):
            seen.setdefault(match[2], []).append(match[3])
    hello = list(dict.fromkeys(seen["hello"]))
    assert hello == ["accepted", "attempt", "connect", "handshake", "send", "confirm", "callback"]
    assert "errback" in seen["order"]
    assert seen["order"].count("attempt") == 2
    assert seen["order"][-1] == "callback"
    assert {"callback", "errback", "bounce"} <= set(seen["news"])
    refused, delivered = (
        float(match[1])
        for what in ("errback", "callback")
        for match in [re.search(rf"^ *(\d+) ms  order +{what}", done.stdout, re.MULTILINE)]
        if match
    )
    assert delivered - refused >= 900
