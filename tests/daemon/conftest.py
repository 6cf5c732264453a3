"""A daemon and a relay for it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.fakes.process import DaemonProcess
from tests.fakes.relay import Relay


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a relay called localhost or 127.0.0.1 shows for itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate, as the operator names it."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay in the clear."""
    with Relay() as started:
        yield started


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Makes a daemon, not yet started, that sends everything to `relay` unless its settings say otherwise."""
    with ExitStack() as stack:

        def make(relay: Relay | None = None, environ: dict[str, str] | None = None, **settings: Any) -> DaemonProcess:
            if relay:
                settings.setdefault(
                    "routes", [{"domains": ["*"], "relay": f"smtp://127.0.0.1:{relay.port}", "tls": "none"}]
                )
            return stack.enter_context(DaemonProcess(tmp_path / "daemon", settings, environ))

        yield make
