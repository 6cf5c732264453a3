"""Files that the configuration names: passwords and certificates.

Each function raises `ValueError` with what is wrong; no message holds a file's content.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from pathlib import Path
from typing import Final

from config.problems import shown_path
from config.settings import Secret

LONGEST_PASSWORD: Final = 16 * 1024


def absolute(path: str) -> str:
    """`path`, which is relative to the working directory, in full."""
    return str(Path(path).absolute())


def read_password(path: str) -> Secret:
    """The password in a file, without the line's end."""
    data = read(path, LONGEST_PASSWORD)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{shown_path(path)} is not UTF-8; put the password alone into it") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{shown_path(path)} is empty; put the password into it")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(
            f"{shown_path(path)} has more than one line or a control character; put the password alone into it"
        )
    return Secret(text)


def check_certificates(path: str) -> None:
    """See that a file has certificates to trust, in PEM."""
    read(path, 64 * 1024 * 1024)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(ssl.SSLError, OSError):
        context.load_verify_locations(cafile=path)
    if not context.cert_store_stats()["x509"]:
        raise ValueError(f"{shown_path(path)} has no certificates; it needs them in PEM (-----BEGIN CERTIFICATE-----)")


def read(path: str, most: int) -> bytes:
    """The content of a regular file of at most `most` octets. A FIFO or a device does not stop us."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"{shown_path(path)} cannot be read: {error.strerror or error}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{shown_path(path)} is no regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{shown_path(path)} cannot be read: {error.strerror or error}") from None
    finally:
        os.close(fd)
    if len(data) > most:
        raise ValueError(f"{shown_path(path)} is larger than {most} octets")
    return data
