"""The SMTP client's conversation, without I/O: octets in, octets and events out (RFC 5321).

The driver's loop, which each of its callbacks ends with:

    events = session.receive_data(octets)      # or connection_lost, timed_out, send, tls_failed
    transport.write(session.data_to_send())    # always: a reply to what was never fetched counts as unsolicited
"""

from __future__ import annotations

from service.message.outcome import Phase
from service.smtp.envelope import Envelope
from service.smtp.events import Event
from service.smtp.extensions import Extensions
from service.smtp.options import SessionOptions


class OutOfStepError(RuntimeError):
    """The driver called something that makes no sense now: our fault, never the server's."""


class Session:
    """One connection's conversation, from the greeting to QUIT.

    With `options.secure` (TLS from the start) it begins in phase TLS and waits for `tls_established`.
    """

    replies: int
    """Whole replies taken so far: a deadline is renewed when this grows, not when octets come."""

    extensions: Extensions
    """What the server offers now; empty before EHLO is answered and again after STARTTLS."""

    secure: bool
    """Whether the conversation is inside TLS."""

    tls_refusal: str
    """Why an opportunistic session went on in the clear ("" if it did not), for the log."""

    def __init__(self, options: SessionOptions) -> None:
        """Raise `ValueError` if `options.hostname` cannot be said to a server."""
        raise NotImplementedError

    @property
    def phase(self) -> Phase:
        """What is being waited for now: names the deadline. MAIL when idle; BODY until the final dot is queued."""
        raise NotImplementedError

    @property
    def waiting(self) -> bool:
        """Whether a reply is owed to us."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether the handshake is done, no envelope is open and the session is usable."""
        raise NotImplementedError

    @property
    def takes_envelope(self) -> bool:
        """Whether `send` may be called: idle, or the last envelope's content is complete (it is then sent ahead)."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether the conversation is over (failed, finished with `close`, or `quit`)."""
        raise NotImplementedError

    def receive_data(self, data: bytes) -> list[Event]:
        """Take octets from the server."""
        raise NotImplementedError

    def connection_lost(self, why: str) -> list[Event]:
        """Tell that the connection ended (EOF, reset); `why` is for the operator. Nothing after `closed`."""
        raise NotImplementedError

    def timed_out(self) -> list[Event]:
        """Tell that the deadline for `phase` has passed."""
        raise NotImplementedError

    def data_to_send(self) -> bytes:
        """What has been queued since last asked; b"" if nothing."""
        raise NotImplementedError

    def tls_established(self) -> None:
        """Tell that the TLS handshake is done and the certificate accepted."""
        raise NotImplementedError

    def tls_failed(self, why: str) -> list[Event]:
        """Tell that there is no TLS: `Failed` with a `HostFailure` in phase tls, also with "opportunistic".

        An opportunistic driver then connects anew with `skip_starttls`; but not after a `BrokenAnswer`.
        """
        raise NotImplementedError

    def send(self, envelope: Envelope) -> list[Event]:
        """Begin a transaction: MAIL, RCPT for each recipient, DATA; pipelined where offered.

        Returns `Finished` at once if no recipient can be sent to this server (too large, not ASCII without SMTPUTF8).
        Raises `OutOfStepError` unless `takes_envelope`.
        """
        raise NotImplementedError

    def send_body(self, piece: bytes, last: bool) -> None:
        """Queue content after `BodyWanted`, dot-stuffed; `last` adds the final dot.

        Ignored once the envelope has ended early (`Finished` or `Failed` came in the middle of the content).
        """
        raise NotImplementedError

    def quit(self) -> None:
        """Take leave: queue QUIT where it can still be understood. Its reply is not waited for: close after writing."""
        raise NotImplementedError
