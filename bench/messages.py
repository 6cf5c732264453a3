"""Messages a second: deferd as a whole, durable, beside aiosmtplib and smtplib with threads, which keep nothing.

The peers get the messages in memory and 20 kept connections; deferd gets files in new/, and counts from its start to
the last confirmation: reading, committing, delivering, settling and writing results included.
"""

from __future__ import annotations

import asyncio
import json
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MESSAGES = 3000
SIZE = 4096
CONNECTIONS = 20
CONTENT = b"From: a@bench.example\r\nTo: b@sink.example\r\nSubject: bench\r\n\r\n" + b"x" * 76 + b"\r\n"
CONTENT += (b"y" * 76 + b"\r\n") * ((SIZE - len(CONTENT)) // 78)


def with_aiosmtplib(port: int, messages: int) -> float:
    """20 tasks, each with a connection of its own; seconds."""
    import aiosmtplib

    async def sender(count: int) -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, use_tls=False, start_tls=False)
        await client.connect()
        for _ in range(count):
            await client.sendmail("a@bench.example", ["b@sink.example"], CONTENT)
        await client.quit()

    async def everyone() -> None:
        await asyncio.gather(*(sender(messages // CONNECTIONS) for _ in range(CONNECTIONS)))

    began = time.perf_counter()
    asyncio.run(everyone())
    return time.perf_counter() - began


def with_threads(port: int, messages: int) -> float:
    """20 threads, each with a connection of its own; seconds."""

    def sender(count: int) -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            for _ in range(count):
                client.sendmail("a@bench.example", ["b@sink.example"], CONTENT)

    threads = [threading.Thread(target=sender, args=(messages // CONNECTIONS,)) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def with_deferd(port: int, messages: int) -> float:
    """The daemon as its own process; the jobs lie in new/ when it starts; seconds."""
    with tempfile.TemporaryDirectory(prefix="deferd-bench-") as name:
        directory = Path(name)
        new = directory / "queue" / "new"
        new.mkdir(parents=True)
        for n in range(messages):
            (new / f"{n}.eml").write_bytes(CONTENT)
        config = directory / "deferd.yaml"
        config.write_text(
            json.dumps(
                {
                    "queue": {"directory": str(directory / "queue")},
                    "hostname": "bench.example",
                    "routes": [{"domains": ["*"], "relay": f"smtp://127.0.0.1:{port}", "tls": "none"}],
                    "http": {"listen": None},
                }
            )
        )
        began = time.perf_counter()
        daemon = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "run", "-c", str(config)], stdout=subprocess.PIPE, text=True
        )
        assert daemon.stdout
        finished = 0
        for line in daemon.stdout:
            finished += '"event": "delivered"' in line
            if finished == messages:
                break
        took = time.perf_counter() - began  # preparing and draining are left out
        threading.Thread(target=daemon.stdout.read, daemon=True).start()
        daemon.terminate()
        daemon.wait(60)
        return took


def measure(client: Callable[[int, int], float], messages: int) -> dict[str, Any]:
    """Run one client, which tells the seconds it took, against a sink of its own."""
    sink = subprocess.Popen([sys.executable, "-m", "bench.sink"], stdout=subprocess.PIPE, text=True)
    assert sink.stdout
    port = int(sink.stdout.readline())
    took = client(port, messages)
    sink.terminate()
    report = json.loads(sink.stdout.read())
    sink.wait()
    assert report["messages"] == messages, report
    return {
        "rate": messages / took,
        "connections": report["connections"],
        "sink_busy": report["cpu"] / took,
    }


def main(messages: int = MESSAGES) -> int:
    """Print the table."""
    clients = {"deferd (durable)": with_deferd, "aiosmtplib": with_aiosmtplib, "smtplib, 20 threads": with_threads}
    rows = {name: measure(client, messages) for name, client in clients.items()}
    print(f"\n{messages} messages of {SIZE} octets over {CONNECTIONS} connections to a sink on this machine\n")
    print(f"{'':<22}{'messages/s':>12}{'deferd is':>12}{'sink busy':>12}{'connections':>13}")
    ours = rows["deferd (durable)"]["rate"]
    for name, row in rows.items():
        ratio = f"{ours / row['rate']:.2f} x"
        void = "  void: the sink was the limit" if row["sink_busy"] > 0.8 else ""
        print(f"{name:<22}{row['rate']:>12.0f}{ratio:>12}{row['sink_busy']:>12.0%}{row['connections']:>13}{void}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
