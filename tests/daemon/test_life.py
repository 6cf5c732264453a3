"""Start, trouble, end: signals, crashes and a second daemon, on a real process."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.problems import ConfigError
from config.settings import Http, Queue, Settings, Timeouts
from deferred.defer import Deferred
from deferred.reactor import Reactor
from service.daemon import Daemon
from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay


def eml(n: int) -> bytes:
    return f"From: ann@a.example\nTo: bob-{n}@b.example\nSubject: {n}\n\nNumber {n}.\n".encode()


def test_all_arrive_though_the_daemon_is_killed_among_them(daemon: Callable[..., DaemonProcess]) -> None:
    """SIGKILL among 500 jobs, three times over, loses none of them."""
    jobs = 500
    with Relay(delay=0.005) as relay:
        process = daemon(relay).start()
        for n in range(jobs):
            process.drop(f"job-{n}.eml", eml(n))
        for killed_after in (50, 150, 300):
            eventually(lambda: len({a.recipients[0] for a in relay.arrivals}), lambda n, k=killed_after: n >= k)
            process.kill()
            process.start()
        wanted = {f"bob-{n}@b.example" for n in range(jobs)}
        eventually(lambda: {a.recipients[0] for a in relay.arrivals}, lambda seen: seen == wanted)
        results = [process.result(f"job-{n}") for n in range(jobs)]
    assert {result["state"] for result in results} == {"delivered"}
    assert len(relay.arrivals) < jobs + 3 * 20 + 1  # only what was in flight at a kill may come twice


def test_a_retry_while_no_daemon_runs_ends_the_rest_at_the_next_start(daemon: Callable[..., DaemonProcess]) -> None:
    """The rest has outlived the daemon, and would be an hour; what the operator asked for has, too."""
    with Relay(script={"bob-1@b.example": ["421 4.3.2 closing"]}) as relay:
        process = daemon(relay, retry={"site_rest": {"first": "1h", "longest": "1h"}}).start()
        process.drop("job.eml", eml(1))
        process.wait_for("site_resting")
        assert process.stop() == 0
        command = [sys.executable, "-m", "service.cli", "queue", "retry", "--all", "-c", str(process.config)]
        subprocess.run(command, check=True, capture_output=True)
        process.start()
        assert process.result("job")["state"] == "delivered"


def test_what_an_operator_changes_is_in_the_log(daemon: Callable[..., DaemonProcess]) -> None:
    """Which jobs, and who: the log is where others look for what became of them."""
    with Relay(script={"bob-1@b.example": ["450 4.2.0 later"]}) as relay:
        process = daemon(relay).start()
        process.drop("job.eml", eml(1))
        id = process.wait_for("deferred")["id"]
        command = [sys.executable, "-m", "service.cli", "queue"]
        for change in (["hold", id], ["remove", "--all"]):
            subprocess.run([*command, *change, "-c", str(process.config)], check=True, capture_output=True)
        held = process.wait_for("queue_changed", change="hold")
        assert (held["jobs"], held["ids"], held["by"]) == (1, [id], pwd.getpwuid(os.getuid()).pw_name)
        assert process.wait_for("queue_changed", change="remove")["jobs"] == 1


def test_sigterm_lets_conversations_finish(daemon: Callable[..., DaemonProcess]) -> None:
    """What is on its way when SIGTERM comes still gets its confirmation; the daemon exits with 0."""
    with Relay(delay=0.1) as relay:
        process = daemon(relay).start()
        process.drop("last.eml", eml(1))
        process.wait_for("attempt_started")
        assert process.stop() == 0
        assert len(relay.arrivals) == 1
    assert process.result("last")["state"] == "delivered"


def test_sigterm_lets_all_conversations_of_a_batch_finish(daemon: Callable[..., DaemonProcess]) -> None:
    """Each of several jobs claimed together gets its confirmation, where the server asks for it in time; none is sent
    twice."""
    with Relay(delay=0.15) as relay:
        process = daemon(relay)
        (process.queue / "new").mkdir(parents=True)
        for n in range(5):
            process.drop(f"job-{n}.eml", eml(n))
        process.start()
        for n in range(5):
            process.wait_for("attempt_started", recipients=[f"bob-{n}@b.example"])
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGTERM)  # once more changes nothing
        assert process.wait() == 0
        assert process.wait_for("draining")["in_flight"] == 5
        assert len(relay.arrivals) == 5
    assert {process.result(f"job-{n}")["state"] for n in range(5)} == {"delivered"}


def test_a_disk_that_hangs_does_not_keep_the_daemon_from_its_end(
    reactor: Reactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that never ends, and a log that nobody reads: `timeouts.drain` holds all the same, and it is told whose
    fault it was."""
    told: list[tuple[str, dict[str, Any]]] = []
    nobody_reads = threading.Event()
    settings = Settings(queue=Queue(directory=str(tmp_path)), http=Http(listen=None), timeouts=Timeouts(drain=1.0))
    daemon = Daemon(
        reactor,
        settings,
        random=random.Random(1),
        write=lambda _: nobody_reads.wait(30),
        listeners=[lambda event, facts: told.append((event, facts))],
    )
    reactor.run_until_complete(daemon.start(), 10)
    close = daemon._store.close
    monkeypatch.setattr(daemon._store, "close", Deferred)
    began = reactor.time()
    reactor.run_until_complete(daemon.stop(), 10)
    assert 0.8 < reactor.time() - began < 1.1
    assert [facts["where"] for event, facts in told if event == "store_failed"] == ["stop"]
    assert "unhandled_error" not in [event for event, _ in told]
    nobody_reads.set()
    reactor.run_until_complete(close(), 10)


def test_a_signal_during_the_start_is_heard(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """SIGHUP does not kill a daemon that is still starting, and SIGTERM ends it as it should."""
    process = daemon(relay)
    process.spawn()
    eventually(lambda: "SigBlk" in status(process) and int(status(process)["SigBlk"], 16), bool)
    process.signal(signal.SIGHUP)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


def status(process: DaemonProcess) -> dict[str, str]:
    """What the kernel knows of the process."""
    assert process.process
    lines = Path(f"/proc/{process.process.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_sighup_takes_the_new_configuration(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """After SIGHUP mail goes where the new configuration says; what waited goes there, too."""
    nowhere = [{"domains": ["*"], "relay": "smtp://127.0.0.1:1", "tls": "none"}]
    process = daemon(routes=nowhere).start()
    process.drop("early.eml", eml(1))
    process.wait_for("site_resting")
    process.configure({"routes": [{"domains": ["*"], "relay": f"smtp://127.0.0.1:{relay.port}", "tls": "none"}]})
    process.signal(signal.SIGHUP)
    process.wait_for("reloaded")
    process.drop("late.eml", eml(2))
    relay.wait_for(2)
    assert process.result("early")["state"] == "delivered"


def test_sighup_makes_the_log_louder(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """From the next event on."""
    process = daemon(relay).start()
    settings: dict[str, Any] = yaml.safe_load(process.config.read_text())
    process.config.write_text(yaml.safe_dump({**settings, "log": {"level": "debug"}}))
    process.signal(signal.SIGHUP)
    process.wait_for("reloaded")
    process.drop("order.eml", eml(1))
    assert process.wait_for("step")["phase"] == "connect"


def test_a_broken_configuration_is_refused_and_the_old_one_stays(
    daemon: Callable[..., DaemonProcess], relay: Relay
) -> None:
    """SIGHUP with a broken file logs what is wrong and where, and changes nothing."""
    process = daemon(relay).start()
    settings: dict[str, Any] = yaml.safe_load(process.config.read_text())
    process.config.write_text(yaml.safe_dump({**settings, "retry": {"delays": "soon"}}))
    process.signal(signal.SIGHUP)
    failed = process.wait_for("reload_failed")
    assert "retry.delays" in str(failed)
    assert str(process.config) in str(failed)
    process.drop("after.eml", eml(1))
    assert process.result("after")["state"] == "delivered"


def test_a_second_daemon_on_the_same_directory_gives_up(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """Two daemons on one queue would send everything twice: the second exits with 1 and names the directory."""
    first = daemon(relay).start()
    second = daemon(relay)
    second.spawn()
    assert second.wait() == 1
    assert str(first.queue) in str(second.events)
    first.drop("still.eml", eml(1))
    assert first.result("still")["state"] == "delivered"


def test_its_health_and_metrics_can_be_asked(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """/healthz, /readyz and /metrics answer, and the metrics count what was done."""
    process = daemon(relay).start()
    process.drop("one.eml", eml(1))
    process.result("one")
    assert process.get("/healthz")[0] == 200
    assert process.get("/readyz")[0] == 200
    status, text = process.get("/metrics")
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert status == 200
    assert float(counted["deferd_jobs_accepted_total"]) == 1
    assert float(counted["deferd_recipients_delivered_total"]) == 1


@pytest.mark.parametrize("output", ["closed", "full", "not read"])
def test_a_log_that_nobody_takes_does_not_keep_the_daemon_from_its_end(
    daemon: Callable[..., DaemonProcess], relay: Relay, output: str
) -> None:
    """Mail is delivered and SIGTERM obeyed, though standard output is closed, full, or stalls."""
    process = daemon(relay, timeouts={"drain": "2s"})
    reading, writing = os.pipe()
    if output == "closed":
        os.close(reading)
    elif output == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    else:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(writing, b"x" * 65536):
                pass
        os.set_blocking(writing, True)
    child = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "run", "-c", str(process.config)], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    try:
        eventually((process.queue / "new").is_dir)
        process.drop("quiet.eml", eml(1))
        assert process.result("quiet")["state"] == "delivered"
        child.terminate()
        _, complaints = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
        if output == "not read" or output == "full":
            os.close(reading)
    assert (child.returncode, complaints) == (0, b"")


def test_a_reload_moves_the_web_face(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """Also from one address of a port to all of them; where it cannot, the old place stays and the key is named."""
    process = daemon(relay).start()
    port = process.url.rpartition(":")[2]
    settings: dict[str, Any] = yaml.safe_load(process.config.read_text())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = settings["http"]["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        process.config.write_text(yaml.safe_dump(settings))
        process.signal(signal.SIGHUP)
        why = process.wait_for("reload_failed")["why"]
        assert f"http.listen: {place}: address already in use; " in why
        assert why.count(place) == 1
        assert str(process.config) in why
    assert process.get("/healthz")[0] == 200
    settings["http"]["listen"] = f"0.0.0.0:{port}"
    process.config.write_text(yaml.safe_dump(settings))
    process.signal(signal.SIGHUP)
    assert process.wait_for("reloaded")["http"] == f"0.0.0.0:{port}"
    assert process.get("/healthz")[0] == 200


def open_files() -> dict[str, str]:
    """This process's descriptors and what they are."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            found[path.name] = str(path.readlink())
    return found


def test_a_start_that_fails_leaves_nothing_behind(reactor: Reactor, tmp_path: Path) -> None:
    """No file, no lock, no listener: the next start in the same process succeeds."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(queue=Queue(directory=str(tmp_path)), http=Http(listen=place))
        before = open_files()
        failed = Daemon(reactor, settings, random=random.Random(1)).start()
        with pytest.raises(ConfigError, match=r"http\.listen"):
            reactor.run_until_complete(failed, 10)
        assert open_files() == before
    second = Daemon(reactor, settings, random=random.Random(1))
    reactor.run_until_complete(second.start(), 10)
    reactor.run_until_complete(second.stop(), 10)
