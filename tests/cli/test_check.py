"""`deferd check`."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path

import pytest
import trustme
from aiosmtpd.smtp import SMTP

from tests.fakes.relay import PatientSMTP, Relay


@pytest.fixture
def config(tmp_path: Path):
    """Write a configuration with these routes; return its path."""

    def config(*routes: dict[str, object], **settings: object) -> Path:
        path = tmp_path / "checked.yaml"
        usual = {"queue": {"directory": str(tmp_path)}, "hostname": "client.example", "routes": routes}
        path.write_text(json.dumps({**usual, **settings}))
        return path

    return config


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """A certificate authority, whose certificate is in ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


class LaxRelay(Relay):
    """A relay that offers TLS and does not insist."""

    def _session(self) -> SMTP:
        return PatientSMTP(self, hostname="relay.test", tls_context=self.tls)


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """What a server called `names` shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


ROUTE = {"domains": ["*"], "relay": "smtp://relay.example"}


def test_a_right_configuration_is_told(deferd, config):
    """Status 0 and one line."""
    path = config(ROUTE)
    result = deferd("check", "-c", path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: is right\n", "")


def test_a_machine_without_a_name_is_a_warning(deferd, config):
    """Other servers think little of an address literal in EHLO and Message-ID."""
    result = deferd("check", "-c", config(ROUTE, hostname="[192.0.2.1]"))
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: hostname: is [192.0.2.1]")


def test_every_fault_is_told_with_78(deferd, tmp_path):
    """One a line; as JSON on demand."""
    path = tmp_path / "bad.yaml"
    path.write_text('routes: []\nlog: {level: "\\e[31m"}\nretry: {jitter: 5}\n')
    result = deferd("check", "-c", path)
    assert result.exit_code == os.EX_CONFIG
    assert len(result.stderr.splitlines()) == 3
    assert all(line.startswith(f"{path}:") for line in result.stderr.splitlines())
    assert "'\\x1b[31m' is none of" in result.stderr
    result = deferd("check", "-c", path, "--json")
    assert result.exit_code == os.EX_CONFIG
    assert len(json.loads(result.stdout)["problems"]) == 3


@pytest.mark.parametrize(
    ("route", "warning"),
    [
        ({"tls": "none", "username": "u", "password": "x"}, "routes[0].tls: is none, and the password goes out"),
        ({"tls": "opportunistic", "username": "u", "password": "x"}, "routes[0].tls: is opportunistic"),
        ({"tls": "encrypt", "username": "u", "password": "x"}, "routes[0].tls: is encrypt"),
        ({"tls": "encrypt", "ca_file": "CA"}, "routes[0].ca_file: is not used"),
        ({"domains": ["a.example"]}, "routes: mail for other domains"),
        ({"domains": ["*", "a.example"]}, "routes[0].domains[1]: is never reached"),
        ({"domains": ["a.example", "A.example", "*"]}, "routes[0].domains[1]: is never reached"),
    ],
)
def test_what_is_risky_is_a_warning(deferd, config, authority, tmp_path, route, warning):
    """On standard error, with status 0."""
    if "ca_file" in route:
        route = {**route, "ca_file": str(tmp_path / "ca.pem")}
    path = config({**ROUTE, **route})
    result = deferd("check", "-c", path)
    assert result.exit_code == 0
    assert f"warning: {warning}" in result.stderr
    assert result.stderr.count("warning:") == 1
    assert "with 1 warning" in result.stdout


def test_a_password_that_everybody_can_read_is_a_warning(deferd, config, tmp_path):
    """By its mode."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    path = config({**ROUTE, "username": "u", "password_file": str(secret)})
    assert "can be read by everybody (mode 0644)" in deferd("check", "-c", path).stderr
    secret.chmod(0o640)
    assert deferd("check", "-c", path).stderr == ""


def test_other_things_that_make_no_sense_are_warnings(deferd, config, tmp_path):
    """Limits beyond limits, warnings after the end, a queue that cannot be."""
    (tmp_path / "file").touch()
    path = config(
        {**ROUTE, "connections": 6},
        retry={"max_age": "1h"},
        limits={"connections": 5},
        queue={"directory": str(tmp_path / "file" / "queue")},
    )
    stderr = deferd("check", "-c", path).stderr
    assert "retry.warn_after" in stderr
    assert "limits.connections_per_site" in stderr
    assert "routes[0].connections: is more than limits.connections" in stderr
    assert "queue.directory" in stderr


def visited(deferd, path) -> tuple[int, list[dict[str, object]]]:
    """The status of `check --connect`, and what it says of the relays."""
    result = deferd("check", "--connect", "--json", "-c", path)
    return result.exit_code, json.loads(result.stdout)["relays"]


def test_each_relay_is_visited(deferd, config, authority, tmp_path):
    """In the clear, under STARTTLS with a password, and under TLS from the start; one that is not there fails."""
    tls = server_context(authority, "localhost", "127.0.0.1")
    ca_file = str(tmp_path / "ca.pem")
    with (
        Relay() as plain,
        Relay(tls=tls, password=("u", "hunter2")) as starttls,
        Relay(tls=tls, implicit=True) as implicit,
    ):
        login = {"username": "u", "password": "hunter2", "ca_file": ca_file}
        path = config(
            {"domains": "a.example", "relay": f"smtp://127.0.0.1:{plain.port}", "tls": "none"},
            {"domains": "b.example", "relay": f"smtp://localhost:{starttls.port}", **login},
            {"domains": "*", "relay": f"smtps://localhost:{implicit.port}", "ca_file": ca_file},
        )
        status, relays = visited(deferd, path)
        text = deferd("check", "--connect", "-c", path).stdout
    assert status == 0
    first, second, third = relays
    assert (first["ok"], first["tls"]) == (True, "")
    assert str(first["text"]).startswith("in the clear")
    assert second["relay"] == f"smtp://localhost:{starttls.port} as u"
    assert str(second["text"]).startswith("TLSv1.3 ")
    assert "certificate for localhost 127.0.0.1 until" in str(second["text"])
    assert str(second["text"]).endswith("the password is taken")
    assert third["tls"] == "TLSv1.3"
    assert plain.arrivals == starttls.arrivals == implicit.arrivals == []
    assert text.count(" ok ") == 3
    assert "hunter2" not in text + json.dumps(relays)


def test_a_relay_that_does_not_serve_fails_the_check(deferd, config, authority, tmp_path):
    """A wrong password, a certificate of nobody we know, nobody there, no such name."""
    tls = server_context(authority, "localhost")
    ca_file = str(tmp_path / "ca.pem")
    with Relay(tls=tls, password=("u", "right")) as relay:
        port = relay.port
        path = config(
            {"domains": "a.example", "relay": f"smtp://localhost:{port}", "username": "u", "password": "wrong",
             "ca_file": ca_file},
            {"domains": "b.example", "relay": f"smtp://localhost:{port}"},
            {"domains": "c.example", "relay": f"smtp://127.0.0.1:{port}", "ca_file": ca_file},
            {"domains": "d.example", "relay": "smtp://127.0.0.1:1", "tls": "none"},
            {"domains": "*", "relay": "smtp://nobody.invalid", "tls": "none"},
        )  # fmt: skip
        status, relays = visited(deferd, path)
    assert status == 1
    texts = [str(relay["text"]) for relay in relays]
    assert not any(relay["ok"] for relay in relays)
    assert texts[0].startswith("auth: 535")
    assert texts[1].startswith("tls: the certificate")
    assert texts[2].startswith("tls: the certificate is for localhost, not for 127.0.0.1")
    assert texts[3].startswith("connect: connection refused")
    assert texts[4].startswith("connect: ")


def test_a_failed_opportunistic_tls_is_told_and_passed_over(deferd, config, authority):
    """As a delivery would: on a new connection, in the clear."""
    broken = server_context(authority, "localhost")
    broken.maximum_version = ssl.TLSVersion.TLSv1_2
    broken.set_ciphers("AES128-SHA@SECLEVEL=0")  # which no client of today takes
    with LaxRelay(tls=broken) as relay:
        route = {"domains": "*", "relay": f"smtp://127.0.0.1:{relay.port}"}
        path = config({**route, "tls": "opportunistic"})
        status, (told,) = visited(deferd, path)
        path = config({**route, "tls": "encrypt"})
        strict_status, (strict,) = visited(deferd, path)
    assert status == 0
    assert str(told["text"]).startswith("in the clear (the TLS handshake failed: ")
    assert strict_status == 1
    assert str(strict["text"]).startswith("tls: the TLS handshake failed: ")


def test_mail_that_waits_and_that_no_route_fits_is_told_before_a_reload_fails_it(deferd, config, spool, accept):
    """Which domains, and how many of their addresses; not where there is no queue to look into."""
    accept("ann@a.example", "bob@b.example", "cy@b.example", "dan@sub.c.example", "bob@b.example")
    queue = {"queue": {"directory": str(spool)}}
    routes = [{"domains": ["a.example", "*.c.example"], "relay": "smtp://relay.example"}]
    said = "routes: no route fits 2 of the addresses that mail waits for in the queue"
    assert (
        f"{said}, and it fails with the next start or reload: b.example (2); add"
        in deferd("check", "-c", config(*routes, **queue)).stderr
    )
    assert said not in deferd("check", "-c", config(*routes, ROUTE, **queue)).stderr
    assert said not in deferd("check", "-c", config(*routes)).stderr
    deferd("queue", "remove", "order-1", "order-2", "order-4")
    assert said not in deferd("check", "-c", config(*routes, **queue)).stderr
