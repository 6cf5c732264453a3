"""TLS as the routes want it: one context for each policy and set of authorities, and clear words for what fails.

Certificates come from the disk, where delivery has no business: whoever builds `Contexts` hands in how a context gets
the authorities that it trusts.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

from config.settings import Tls
from service.delivery.receipt import describe

Trust = Callable[[ssl.SSLContext, str | None], None]
"""Put into a context the authorities to trust: those in a file of certificates, or (None) the system's.

Raises `OSError` (`ssl.SSLError` is one) where the file cannot be read or holds no certificate."""

_REASONS: Final = {
    9: "the certificate is not valid yet (from {not_before})",
    10: "the certificate has expired (on {not_after})",
    18: "the certificate is self-signed, and not one that we trust",
    19: "the certificate's chain ends in one that is self-signed, and not one that we trust: {issuer}",
    20: "the certificate's issuer is unknown to us: {issuer}",
    21: "the certificate's issuer is unknown to us: {issuer}",
    23: "the certificate has been revoked",
    62: "the certificate is for {names}, not for {wanted}",
    64: "the certificate is for {names}, not for {wanted}",
}
"""OpenSSL's X509_V_ERR_ numbers that an operator meets."""


class Contexts:
    """The contexts, each built when it is first asked for and kept: building one reads all the authorities."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._built: dict[tuple[bool, str | None], ssl.SSLContext] = {}

    def get(self, policy: Tls, ca_file: str | None) -> ssl.SSLContext:
        """The context for a route. `verify` checks the chain and the server's name; the other policies encrypt only.

        Raises `OSError` where the authorities cannot be read.
        """
        key = (True, ca_file) if policy == "verify" else (False, None)
        if key not in self._built:
            self._built[key] = self._verifying(ca_file) if policy == "verify" else _encrypting()
        return self._built[key]

    def _verifying(self, ca_file: str | None) -> ssl.SSLContext:
        context = _modern()
        self._trust(context, ca_file)
        return context


def _modern() -> ssl.SSLContext:
    """A client's context that checks everything and trusts nobody yet. TLS 1.2 at least (RFC 8996, RFC 9325)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _encrypting() -> ssl.SSLContext:
    context = _modern()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def explain(error: Exception, wanted: str, session: object = None) -> str:
    """What went wrong in a TLS handshake with the server named `wanted`, in one line that the session is to escape: a
    certificate may say anything.

    `session` is the `ssl.SSLObject` where there is one: the certificate that it saw tells names and dates.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_reason(error, wanted, _certificate_seen(session))
    if isinstance(error, TimeoutError):
        return "the TLS handshake took too long"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"the TLS handshake failed: {error.reason.replace('_', ' ').lower()}"
    return f"the TLS handshake failed: {describe(error)}"


def _certificate_reason(error: ssl.SSLCertVerificationError, wanted: str, seen: dict[str, Any]) -> str:
    template = _REASONS.get(error.verify_code)
    if template is None:
        return f"the certificate is not trusted: {error.verify_message}"
    return template.format(
        names=", ".join(_names(seen)) or "other names",
        wanted=wanted,
        issuer=", ".join(value for _, value in _fields(seen.get("issuer"))) or "not named",
        not_after=seen.get("notAfter", "a date not shown"),
        not_before=seen.get("notBefore", "a date not shown"),
    )


def _certificate_seen(session: object) -> dict[str, Any]:
    """The server's own certificate as `getpeercert` would show it, {} where it cannot be had.

    `getpeercert` refuses before the handshake is done, which it never is when verification fails; the chain as the
    server sent it is there, but until Python 3.13 only under a private name, and parsed only under that.
    """
    inner = getattr(session, "_sslobj", None)
    chain = getattr(inner, "get_unverified_chain", None)
    certificates = chain() if chain is not None else None
    return dict(certificates[0].get_info()) if certificates else {}


def _names(seen: dict[str, Any]) -> Iterator[str]:
    alternatives = [str(value) for kind, value in seen.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    if alternatives:
        yield from alternatives[:10]
    else:
        yield from (value for key, value in _fields(seen.get("subject")) if key == "commonName")


def _fields(name: Any) -> Iterator[tuple[str, str]]:
    """The fields of a distinguished name as `getpeercert` nests it."""
    for group in name or ():
        for key, value in group:
            yield str(key), str(value)
