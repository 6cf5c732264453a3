"""What a session has to know before it begins."""

from __future__ import annotations

from typing import Literal

import msgspec

from service.smtp.auth import Credentials

TLSPolicy = Literal["none", "opportunistic", "encrypt", "verify"]


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to one server.

    `hostname` is our name, for EHLO. `tls` is the route's policy; whether a certificate is good is the driver's
    business, which calls `Session.tls_failed` if it is not. `secure`: TLS from the start (smtps), so that the session
    begins with `tls_established`. `host` is the server as the operator knows it; it goes into outcomes and errors.
    `skip_starttls`: do not try STARTTLS again, since it has just failed with this host (only with "opportunistic";
    credentials are still never sent in the clear, as they would be with "none"). `chunking`: content goes by BDAT where
    the server offers CHUNKING and PIPELINING; False after `ChunkingRefused`.
    """

    hostname: str
    tls: TLSPolicy = "verify"
    credentials: Credentials | None = None
    secure: bool = False
    lmtp: bool = False
    host: str = ""
    skip_starttls: bool = False
    chunking: bool = True
