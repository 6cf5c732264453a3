"""The document's listings, run as a reader runs them: each in a process of its own, on the real reactor."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class OnePage(BaseHTTPRequestHandler):
    """A site with one page."""

    def do_GET(self) -> None:
        if self.path == "/":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"Hello from the PAGE")
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def site() -> Iterator[str]:
    """The URL of a site with one page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OnePage)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def run(example: str, *args: str, given: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a listing; warnings are errors, and it has to end by itself, with this status."""
    command = [sys.executable, "-W", "error", "-m", f"deferred.examples.{example}", *args]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.parametrize("example", ["one_callback", "two_callbacks", "errback", "send_email"])
def test_one_that_lacks_its_arguments_says_how_it_is_run(example: str) -> None:
    done = run(example, status=1)
    assert f"python -m deferred.examples.{example} " in done.stderr
    assert "Traceback" not in done.stderr


def test_one_callback_gets_the_page(site: str) -> None:
    """The Deferred comes first, the contents after."""
    done = run("one_callback", site)
    promise, page = done.stdout.index("A Deferred is here"), done.stdout.index("Hello from the PAGE")
    assert promise < page
    assert done.stderr == ""


def test_two_callbacks_hand_on_what_they_make(site: str) -> None:
    """The second sees what the first returned."""
    done = run("two_callbacks", site)
    assert "hello from the page" in done.stdout
    assert "PAGE" not in done.stdout
    assert done.stderr == ""


def test_the_errback_takes_the_page_that_does_not_exist(site: str) -> None:
    """Neither callback is called, the errback is, and nothing is left unhandled."""
    done = run("errback", f"{site}does-not-exist")
    assert "The Deferred has called explain with a failure: 404" in done.stdout
    assert "print_contents" not in done.stdout
    assert done.stderr == ""


def test_the_errback_is_not_called_for_a_page_that_is_there(site: str) -> None:
    """All goes well: only the callbacks."""
    done = run("errback", site)
    assert "hello from the page" in done.stdout
    assert "explain" not in done.stdout


def test_the_errback_takes_a_site_that_is_not_there() -> None:
    """A name that cannot be looked up goes the same way."""
    assert "called explain" in run("errback", "http://no-such-host.invalid/").stdout


@pytest.mark.parametrize("example", ["one_callback", "two_callbacks", "errback"])
def test_an_address_that_is_none_ends_the_program(example: str) -> None:
    """The Deferred has failed before the reactor runs."""
    done = run(example, "no address")
    assert "a URL has no" in done.stdout + done.stderr


def test_without_an_errback_the_failure_is_reported(site: str) -> None:
    """Nobody took it, so it is told on standard error, and the program ends all the same."""
    done = run("one_callback", f"{site}does-not-exist")
    assert "404" in done.stderr
    assert "called print_contents" not in done.stdout


class Mailbox(socketserver.StreamRequestHandler):
    """A mail server for one conversation, which it writes down."""

    def handle(self) -> None:
        server: Any = self.server
        self.say("220-mail.test is here\r\n220 and listens")
        while line := self.rfile.readline():
            server.heard.append(line)
            if line.upper().startswith(b"DATA"):
                self.say("354 go on")
                while (content := self.rfile.readline()) not in (b".\r\n", b""):
                    server.content.append(content)
                if server.vanishes:
                    return
                self.say("250 2.0.0 taken")
            elif line.upper().startswith(b"RCPT"):
                self.say(server.answer_to_rcpt)
            else:
                self.say("250 fine")

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class MailServer(socketserver.TCPServer):
    """`heard` has the commands, `content` the lines of the message, as they came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Mailbox)
        self.heard: list[bytes] = []
        self.content: list[bytes] = []
        self.answer_to_rcpt = "250 ok"
        self.vanishes = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """A mail server in a thread."""
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_email_is_confirmed(mail: MailServer) -> None:
    """Connect, wait, check, send, wait, disconnect: with the dots that keep the message whole."""
    done = run("send_email", mail.address, "ann@a.example", "bob@b.example", given="Subject: hello\n\n.\n..two\nend")
    assert done.stdout.index("A Deferred is here") < done.stdout.index("The server has confirmed: 250 2.0.0 taken")
    assert done.stderr == ""
    commands = [b"HELO localhost", b"MAIL FROM:<ann@a.example>", b"RCPT TO:<bob@b.example>", b"DATA", b"QUIT"]
    assert [line.rstrip() for line in mail.heard] == commands
    assert mail.content == [b"Subject: hello\r\n", b"\r\n", b"..\r\n", b"...two\r\n", b"end\r\n"]


def test_an_email_that_is_refused_goes_down_the_errback_chain(mail: MailServer) -> None:
    """The server's own words come out at the end; nothing is sent after them but goodbye."""
    mail.answer_to_rcpt = "550 5.1.1 no such mailbox"
    done = run("send_email", mail.address, "ann@a.example", "bob@b.example", given="hi\n")
    assert "The message is not sent: 550 5.1.1 no such mailbox" in done.stdout
    assert done.stderr == ""
    assert mail.heard[-1] == b"QUIT\r\n"
    assert mail.content == []


def test_an_email_whose_server_vanishes_after_the_final_dot_is_in_doubt(mail: MailServer) -> None:
    """It may have the message: nobody should send it again without a thought."""
    mail.vanishes = True
    done = run("send_email", mail.address, "ann@a.example", "bob@b.example", given="hi\n")
    assert "The message may or may not have been sent: the server closed the connection" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("server", ["127.0.0.1:smtp", "127.0.0.1:", "127.0.0.1:99999"])
def test_what_is_no_port_is_told_how_it_is_run(server: str) -> None:
    done = run("send_email", server, "ann@a.example", "bob@b.example", status=1)
    assert "python -m deferred.examples.send_email " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_without_a_port_is_met_at_25() -> None:
    """This address is nobody's, and nothing is sent to it."""
    done = run("send_email", "255.255.255.255", "ann@a.example", "bob@b.example")
    assert "The message is not sent: " in done.stdout
    assert "255.255.255.255:25" in done.stdout


@pytest.mark.parametrize("address", ["bob@b.example>\r\nDATA", "bob", "b ob@b.example"])
def test_an_address_cannot_be_a_command(mail: MailServer, address: str) -> None:
    """A line end in an address is refused before anything of it is sent."""
    done = run("send_email", mail.address, "ann@a.example", address, given="hi\n")
    assert "is no address" in done.stdout
    assert b"DATA\r\n" not in mail.heard
