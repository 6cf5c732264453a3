"""`deferd-sendmail`: what programs expect to find as /usr/sbin/sendmail. Exit status as in sysexits.h.

A message comes on standard input, up to a line with a single dot unless -i is given, and is dropped into the queue.
The envelope's sender is -f, else who calls; the recipients are the arguments and, with -t, those of the header.
Addresses without a domain, as cron has them, are completed with our own name.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from dataclasses import dataclass, field
from email.utils import formataddr
from typing import IO, Final

from config.loader import ConfigError, load
from config.settings import Settings
from service.cli.drop import DropError, drop
from service.cli.letter import caller, judged, letter
from service.cli.terminal import clean, is_unwritten, unwritable
from service.message.address import check_sender
from service.message.eml import header_of
from service.message.job import JobError
from service.message.mailboxes import addresses_in
from service.message.wire import normalise

_WITH_VALUE: Final = frozenset("BCFLNORVXfhoprA")
_IGNORED: Final = frozenset("BEGLNORUVXehmnopvA")
_HELP: Final = f"""\
usage: deferd-sendmail [OPTION...] [RECIPIENT...] <MESSAGE

Drops the message on standard input into deferd's queue.

  -t            take recipients from the message's To, Cc and Bcc
  -i, -oi       a line with a single dot does not end the message (-ti is both)
  -f, -r ADDR   the envelope's sender; "" or <> is the null sender
  -F NAME       the full name for From, where the message has none
  -C FILE       deferd's configuration; else $DEFERD_CONFIG names it
  -bm           take a message: the default
  -bp           list the queue, as `deferd queue list` does
  --            recipients follow, and no option
  --help        this

Taken and ignored, as other programs give them: {" ".join(f"-{option}" for option in sorted(_IGNORED))}
"""
_FROM_FIELD: Final = re.compile(rb"^from[ \t]*:", re.IGNORECASE | re.MULTILINE)
_DOT: Final = re.compile(rb"^\.\r?$", re.MULTILINE)


class _Exit(Exception):
    """The end, with a status of sysexits.h and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass
class Options:
    """What the command line says."""

    sender: str | None = None
    full_name: str = ""
    from_header: bool = False
    dots: bool = True
    list_queue: bool = False
    help: bool = False
    config_path: str | None = None
    recipients: list[str] = field(default_factory=list)


def main() -> None:
    """The console script `deferd-sendmail`."""
    sys.exit(sendmail(sys.argv[1:], None if sys.stdin is None else sys.stdin.buffer))


def sendmail(arguments: list[str], stdin: IO[bytes] | None) -> int:
    """Drop the message on `stdin` (None: it is closed); the exit status."""
    try:
        options = parse(arguments)
        if options.help:
            print(_HELP, end="", flush=True)
            return os.EX_OK
        settings = _settings(options)
        if options.list_queue:
            return _list_queue(options)
        _drop(_message(options, settings, stdin), settings)
    except _Exit as end:
        print(f"deferd-sendmail: {clean(end)}", file=sys.stderr)
        return end.status
    except OSError as error:
        if not is_unwritten(error):
            raise
        unwritable(error, program="deferd-sendmail")
        return os.EX_IOERR
    return os.EX_OK


def parse(arguments: list[str]) -> Options:
    """The command line as sendmail has it: a value follows its letter at once or as the next argument."""
    options = Options()
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            options.recipients += rest
        elif argument == "--help":
            options.help = True
        elif not argument.startswith("-") or argument == "-":
            options.recipients.append(argument)
        else:
            letter_, value = argument[1], argument[2:]
            if letter_ in _WITH_VALUE and not value and letter_ != "o":
                following = next(rest, None)
                if following is None or (not following and letter_ not in "fr"):
                    raise _Exit(os.EX_USAGE, f"-{letter_} needs a value")
                value = following
            _set(options, letter_, value, argument)
    return options


def _set(options: Options, letter_: str, value: str, argument: str) -> None:
    match letter_:
        case "f" | "r":
            options.sender = value
        case "F":
            options.full_name = value
        case "C":
            options.config_path = value
        case "t":
            options.from_header = True
            if "i" in value:  # -ti, as some write it
                options.dots = False
        case "i":
            options.dots = False
            if "t" in value:
                options.from_header = True
        case "o" if value == "i":
            options.dots = False
        case "b" if value == "p":
            options.list_queue = True
        case "b" if value == "m":
            pass
        case _ if letter_ in _IGNORED:
            pass
        case _:
            raise _Exit(os.EX_USAGE, f"{argument} is not known here; --help lists what is")


def _list_queue(options: Options) -> int:
    from service.cli import cli  # which nobody else needs here

    config = ["-c", options.config_path] if options.config_path else []
    try:
        cli(["queue", "list", *config], prog_name="deferd")
    except SystemExit as end:
        return os.EX_UNAVAILABLE if end.code else os.EX_OK
    return os.EX_OK


def _settings(options: Options) -> Settings:
    try:
        return load(options.config_path, routes=False, origin="-C names it")
    except ConfigError as error:
        raise _Exit(os.EX_CONFIG, str(error).replace("\n", "; ")) from None


def _message(options: Options, settings: Settings, stdin: IO[bytes] | None) -> bytes:
    """The file to drop."""
    recipients = [address for argument in options.recipients for address in _addresses(argument, settings)]
    if not recipients and not options.from_header:
        raise _Exit(os.EX_USAGE, "give recipients, or -t to take them from the header")
    if stdin is None:
        raise _Exit(os.EX_NOINPUT, "standard input is closed, and the message comes from there")
    sender = _sender(options, settings)
    data = stdin.read(settings.limits.message_size + 1)
    if options.dots and (dot := _DOT.search(data)):
        data = data[: dot.start()]
    try:
        if not data.strip():
            raise JobError("the message is empty")
        content = _with_from(normalise(data), options.full_name, sender or caller(settings))
        if options.from_header:
            headed = letter(content, settings, sender=sender, from_header=True, domain=settings.hostname)
            found = judged(headed, settings, domain=settings.hostname).recipients
            if not recipients and _is_understood(headed, settings):
                return headed
            recipients += found
        return letter(content, settings, sender=sender, recipients=list(dict.fromkeys(recipients)))
    except JobError as error:
        raise _Exit(os.EX_DATAERR, str(error)) from None


def _is_understood(file: bytes, settings: Settings) -> bool:
    """Whether each address in its header has a domain, so that no recipient has to be written above it."""
    try:
        judged(file, settings)
    except JobError:
        return False
    return True


def _addresses(argument: str, settings: Settings) -> list[str]:
    """The addresses in one argument, which may be a list."""
    try:
        if not (addresses := addresses_in(argument, settings.hostname)):
            raise JobError(f"the argument {argument!r} has no address in it")
    except JobError as error:
        raise _Exit(os.EX_NOUSER, str(error)) from None
    return addresses


def _sender(options: Options, settings: Settings) -> str:
    """The envelope's sender: "" is the null sender."""
    if options.sender is None:
        return caller(settings)
    text = options.sender.strip()
    if text in ("", "<>"):
        return ""
    try:
        found = addresses_in(text, settings.hostname)
        if len(found) != 1:
            raise JobError(f"the sender {text!r} is not one address")
        return check_sender(found[0])
    except JobError as error:
        raise _Exit(os.EX_USAGE, str(error)) from None


def _with_from(content: bytes, full_name: str, sender: str) -> bytes:
    """The message with a From field, which programs leave to us."""
    header = header_of(content)
    if _FROM_FIELD.search(header):
        return content
    if any(not character.isprintable() for character in full_name):
        raise JobError("the full name of -F holds a control character")
    line = f"From: {formataddr((full_name, sender)) if sender.isascii() else f'<{sender}>'}\r\n".encode()
    return line + (content if header or content.startswith(b"\r\n") else b"\r\n" + content)


def _drop(file: bytes, settings: Settings) -> None:
    try:
        drop(settings.queue.directory, file, option="-C")
    except DropError as error:
        passing = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
        raise _Exit(os.EX_TEMPFAIL if passing else os.EX_CANTCREAT, str(error)) from None
