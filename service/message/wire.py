"""Content made ready for the wire: every line ends in CRLF, and there is no other CR or LF and no NUL.

What follows is why a message cannot end early (SMTP smuggling): servers disagree on what a stray CR or LF beside a dot
means, so none is ever stored, let alone sent. Lines of any length and 8-bit octets stay as they are.
"""

from __future__ import annotations

from service.message.job import JobError

__all__ = ["normalise"]


def normalise(data: bytes) -> bytes:
    """`data` with every line end as CRLF, each bare CR as a space, and a line end at its end.

    Raises `JobError` where there is a NUL (RFC 5321, 4.5.2 leaves no way to send it). Takes time linear in the size.
    """
    nul = data.find(0)
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise JobError(f"line {line} holds a NUL, which mail cannot carry: encode the content (base64) or remove it")
    if b"\r" in data:
        pairs = data.count(b"\r\n")
        if data.count(b"\r") != pairs or data.count(b"\n") != pairs:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    else:
        data = data.replace(b"\n", b"\r\n")
    return data if data.endswith(b"\r\n") else data + b"\r\n"
