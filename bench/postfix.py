"""Postfix on the same work: a private instance on the loopback that relays everything to the sink.

It needs root, and Postfix with its own load generator `smtp-source`, which Debian has in the package postfix. The
machine's own Postfix, if one runs, is not touched: this one has its own configuration, queue and port, all in a
temporary directory, and no chroot. It is tuned: no look-ups, no throttles, as many deliveries at once as help.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from bench.mail import SENDER
from bench.place import Folder
from bench.wrong import Skipped, Wrong

HOW_TO_GET_IT: Final = (
    "install the package postfix (Debian: apt-get install postfix, 'No configuration'), and run as root"
)
CONCURRENCY: Final = 50
SESSIONS: Final = 20

_SERVICES: Final = """
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix   n - n 60 1 pickup
cleanup   unix   n - n - 0 cleanup
qmgr      unix   n - n 300 1 qmgr
rewrite   unix   - - n - - trivial-rewrite
bounce    unix   - - n - 0 bounce
defer     unix   - - n - 0 bounce
trace     unix   - - n - 0 bounce
verify    unix   - - n - 1 verify
flush     unix   n - n 1000? 0 flush
proxymap  unix   - - n - - proxymap
smtp      unix   - - n - - smtp
relay     unix   - - n - - smtp
showq     unix   n - n - - showq
error     unix   - - n - - error
retry     unix   - - n - - error
discard   unix   - - n - - discard
anvil     unix   - - n - 1 anvil
scache    unix   - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


def look_for_it() -> None:
    """Raise `Skipped` where Postfix cannot be run here."""
    missing = [name for name in ("postfix", "postconf", "postqueue", "smtp-source") if _path(name) is None]
    if missing:
        raise Skipped(f"there is no {missing[0]}: {HOW_TO_GET_IT}")
    if os.geteuid():
        raise Skipped(f"only root can start Postfix: {HOW_TO_GET_IT}")


def _path(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Postfix:
    """The instance, running from `with` on. It delivers to the sink at that port."""

    def __init__(self, sink: int) -> None:
        look_for_it()
        self._sink = sink
        self._folder = Folder()
        self._home = self._folder.path
        self._etc = self._home / "etc"
        self._spool = self._home / "spool"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        self._home.chmod(0o755)
        for folder in (self._etc, self._spool, self._home / "data"):
            folder.mkdir()
        shutil.chown(self._home / "data", "postfix")
        (self._etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in self._settings().items()))
        (self._etc / "master.cf").write_text(_SERVICES.format(port=self.port))
        self._postfix("start")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.05)
        self._stop()
        raise Wrong("Postfix does not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._postfix("stop", check=False)
        end = time.monotonic() + 30
        while (self._spool / "pid" / "master.pid").exists() and self._running() and time.monotonic() < end:
            time.sleep(0.05)
        self._folder.close()

    def _running(self) -> bool:
        return self._postfix("status", check=False) == 0

    def _settings(self) -> Mapping[str, str | int]:
        return {
            "compatibility_level": "3.6",
            "config_directory": str(self._etc),
            "queue_directory": str(self._spool),
            "data_directory": str(self._home / "data"),
            "command_directory": "/usr/sbin",
            "daemon_directory": _default("daemon_directory"),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": "bench.example",
            "mydestination": "",
            "alias_maps": "",
            "inet_interfaces": "loopback-only",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "relayhost": f"[127.0.0.1]:{self._sink}",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_peername_lookup": "no",
            "smtpd_client_connection_count_limit": 0,
            "smtp_tls_security_level": "none",
            "smtp_host_lookup": "native",
            "disable_dns_lookups": "yes",
            "default_destination_concurrency_limit": CONCURRENCY,
            "initial_destination_concurrency": CONCURRENCY,
            "default_process_limit": 200,
            "qmgr_message_active_limit": 40_000,
            "in_flow_delay": 0,
            "maillog_file": str(self._home / "maillog"),
            "maillog_file_prefixes": str(self._home),
        }

    def inject(self, messages: int, size: int) -> None:
        """Hand it so many messages over SMTP, in several sessions at once; each has its durable 250 at the end."""
        command = [_path("smtp-source") or "", "-m", str(messages), "-s", str(SESSIONS), "-l", str(size), "-f", SENDER]
        subprocess.run([*command, "-t", "b@sink.example", f"127.0.0.1:{self.port}"], check=True, timeout=600)

    def hold(self) -> None:
        """Deliver nothing from now on."""
        self._configure("defer_transports=smtp")

    def go(self) -> None:
        """Deliver everything that has gathered."""
        self._configure("defer_transports=")
        subprocess.run([_path("postqueue") or "", "-c", str(self._etc), "-f"], check=True)

    def wait_until_deferred(self, messages: int, seconds: float = 120) -> None:
        """Wait until so many messages lie where those lie that could not be delivered."""
        end = time.monotonic() + seconds
        while self._count("deferred") < messages:
            if time.monotonic() > end:
                raise Wrong(f"Postfix holds {self._count('deferred')} messages, not {messages}")
            time.sleep(0.2)

    def _count(self, queue: str) -> int:
        return sum(1 for path in (self._spool / queue).rglob("*") if path.is_file())

    def _configure(self, *settings: str) -> None:
        subprocess.run([_path("postconf") or "", "-c", str(self._etc), "-e", *settings], check=True)
        self._postfix("reload")
        time.sleep(1)  # the queue manager is a new process now

    def _postfix(self, command: str, *, check: bool = True) -> int:
        done = subprocess.run(
            [_path("postfix") or "", "-c", str(self._etc), command], check=False, capture_output=True, text=True
        )
        if check and done.returncode:
            raise Wrong(f"postfix {command}: {done.stderr.strip()}")
        return done.returncode


def _default(setting: str) -> str:
    command = [_path("postconf") or "", "-d", "-h", setting]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
