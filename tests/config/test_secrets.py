"""Passwords and certificates: where they come from, and that they show nowhere."""

from __future__ import annotations

import os

import pytest
import trustme

from config.loader import ConfigError, load

ROUTE = "routes: [{{domains: '*', relay: smtp://a.example, username: user, {}}}]"


def test_a_password_file_loses_its_line_end_only(loaded, tmp_path):
    """One line end, not the spaces that belong to the password."""
    secret = tmp_path / "secret"
    secret.write_bytes(b" hunter2 \r\n")
    route = loaded(ROUTE.format(f"password_file: {secret}")).routes[0]
    assert route.password == " hunter2 "
    assert "hunter2" not in repr(route)


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"a\0b", b"\xff", b"x" * 20_000])
def test_a_password_file_with_anything_else_is_refused(faults, tmp_path, content):
    """Empty, several lines, control characters, not UTF-8, too large."""
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    (fault,) = faults(ROUTE.format(f"password_file: {secret}"))
    assert fault.startswith("deferd.yaml:1: routes[0].password_file: 'secret' ")


def test_a_password_file_that_cannot_be_read_is_refused(faults, tmp_path):
    """Missing, a folder, and a FIFO, which must not stop us."""
    os.mkfifo(tmp_path / "fifo")
    for name, why in (("none", "No such file"), ("", "no regular file"), ("fifo", "no regular file")):
        (fault,) = faults(ROUTE.format(f"password_file: {tmp_path}/{name}"))
        assert why in fault


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("username: user", "username: has no password"),
        ("username: user, password: null", "username: has no password"),
        ("password: x", "password: has no username"),
        ("username: user, password: ''", "password: is empty"),
        ("username: user, password: 12345", "password: is a number"),
        ("username: user, password: x, password_file: every_key.yaml", "password_file: is given beside password"),
        ("ca_file: /none/ca.pem", "ca_file: '/none/ca.pem' cannot be read"),
        ("relay: 'smtps://b.example', tls: none", "tls: is none, and an smtps://"),
    ],
)
def test_half_a_login_is_a_fault(faults, keys, fault):
    """Username and password go together, the password comes from one place."""
    relay = "" if "relay" in keys else "relay: smtp://a.example, "
    (found,) = faults(f"routes: [{{domains: '*', {relay}{keys}}}]")
    assert found.startswith(f"deferd.yaml:1: routes[0].{fault}")


def test_nulls_are_no_login(loaded):
    """A route may say that it has none."""
    text = "{domains: '*', relay: smtp://a.example, username: null, password: null, password_file: null}"
    assert loaded(f"routes: [{text}]").routes[0].username is None


def test_a_ca_file_has_certificates(loaded, faults, tmp_path):
    """PEM with a certificate in it; a key, or text, is not enough."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.private_key_pem.write_to_path(tmp_path / "key.pem")
    assert loaded(ROUTE.format(f"password: x, ca_file: {tmp_path}/ca.pem")).routes[0].ca_file
    (fault,) = faults(ROUTE.format(f"password: x, ca_file: {tmp_path}/key.pem"))
    assert "has no certificates" in fault


def test_no_fault_shows_a_password(write):
    """Whatever is wrong: in the file, in a URL, in a variable, in a password file."""
    text = """\
        hostname: "${PW} x"
        routes:
          - {domains: '*', relay: "smtp://user:hunter2@a.example", password: "hunter2\\t"}
          - {domains: '*', relay: "smtp://${PW}", username: u, password: "hunter2${NONE}"}
    """
    environ = {"PW": "hunter2 ", "DEFERD_ROUTES__0__PASSWORD": "hunter2\n", "DEFERD_ROUTES__0__PASWORD": "hunter2"}
    with pytest.raises(ConfigError) as caught:
        load(write(text), environ)
    assert len(caught.value.problems) >= 6
    assert "hunter2" not in str(caught.value)
