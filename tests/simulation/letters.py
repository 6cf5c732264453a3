"""Random jobs: as .eml, .json or .yaml, for one recipient or several, at several sites."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from tests.simulation.books import Mail

PEOPLE = ("ann", "bob", "eve", "joe", "sue", "tim", "bad.mona", "bad.rex", "grey.lou", "grey.mia")


def draw_recipients(random: Random, token: str, domains: list[str]) -> tuple[str, ...]:
    """Some addresses; each is this job's alone, but for its domain."""
    number = random.choice((1, 1, 1, 2, 2, 3, 5))
    people = random.sample(PEOPLE, number)
    return tuple(f"{person}.{token}@{random.choice(domains)}" for person in people)


def write_job(random: Random, directory: Path, mail: Mail, expires: float | None) -> str:
    """Put the job's file into new/ (written, then renamed); return its name."""
    size = random.choice((0, 0, 0, 300, 3000, 30_000))
    if mail.token.endswith("7"):
        size *= 20  # more than one piece of the store, at times
    content = f"X-Token: {mail.token}\nSubject: {mail.token}\nFrom: home@home.test\n\n.\n" + "..a line of it\n" * (
        size // 15
    )
    plain = mail.not_before is None and expires is None and mail.key is None
    ending = random.choice(("eml", "eml", "json", "yaml")) if plain else random.choice(("json", "yaml"))
    if ending == "eml":
        head = [f"X-Sender: <{mail.sender}>", *(f"X-Receiver: <{each}>" for each in mail.recipients)]
        text = "\n".join([*head, content])
    else:
        job: dict[str, object] = {"sender": mail.sender, "recipients": list(mail.recipients), "message": content}
        if mail.not_before is not None:
            job["not_before"] = datetime.fromtimestamp(mail.not_before, UTC).isoformat().replace("+00:00", "Z")
        if expires is not None:
            job["expires"] = f"{int(expires)}s"
        if mail.key is not None:
            job["key"] = mail.key
        if random.random() < 0.2:
            job["in_doubt"] = mail.in_doubt = "hold"
        if random.random() < 0.5:
            job["priority"] = random.choice(("high", "bulk"))
        text = json.dumps(job)  # which is YAML, too
    name = f"{mail.token}.{ending}"
    temporary = directory / "new" / f"{name}.tmp"
    temporary.write_text(text)
    temporary.rename(temporary.with_suffix(""))
    return name
