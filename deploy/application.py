"""An application that sends mail without waiting for a mail server: it drops a file, and looks for the result."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def drop(queue: Path, name: str, job: dict[str, object]) -> None:
    """Write, sync, then rename: deferd sees the whole job or none of it, and a crash here leaves no half."""
    hidden = queue / "new" / f".{name}.tmp"
    with hidden.open("w") as file:
        json.dump(job, file)
        file.flush()
        os.fsync(file.fileno())
    hidden.rename(queue / "new" / f"{name}.json")


def outcome(queue: Path, name: str, patience: float) -> dict[str, object] | None:
    """What became of the job, once it is known; None if it takes longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            result: dict[str, object] = json.loads((queue / "results" / f"{name}.json").read_text())
        except FileNotFoundError:
            result = {"state": "queued"}
        if result["state"] != "queued":
            return result
        time.sleep(0.2)
    return None


def main() -> int:
    """Drop one job and tell what became of it."""
    queue = Path(sys.argv[1])
    name = f"welcome-{time.time_ns()}"
    drop(
        queue,
        name,
        {
            "from": os.environ.get("MAIL_FROM", "Shop <shop@example.org>"),
            "to": [os.environ.get("MAIL_TO", "you@example.net")],
            "subject": "Welcome",
            "text": "It is good to have you here.\n",
        },
    )
    result = outcome(queue, name, patience=float(os.environ.get("PATIENCE", "60")))
    print(json.dumps(result or {"name": name, "state": "queued"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
