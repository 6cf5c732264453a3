"""`deferd send`: drops jobs, durably."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from config.settings import Settings
from service.cli.options import config_option, give_up, json_option, local_settings
from service.cli.terminal import clean, print_json, unwritable

STRUCTURED = (".json", ".yaml", ".yml")


@click.command()
@config_option
@click.option("-f", "--from", "sender", metavar="FROM", help="The envelope's sender; <> is the null sender.")
@click.option("-t", "from_header", is_flag=True, help="Take the recipients from To, Cc and Bcc.")
@json_option
@click.argument("arguments", metavar="[RCPT]... [FILE]...", nargs=-1)
def send(
    config_path: str | None, sender: str | None, from_header: bool, as_json: bool, arguments: tuple[str, ...]
) -> None:
    """Drop messages into the queue, durably.

    Prints the names of their jobs once they are on disk; their results will be results/NAME.json.

    An argument with an @ that is no file is a recipient, any other is a file; without a file, or for the file -, the
    message comes from standard input. Each file is a job for all the recipients.

    Without RCPT and without -t the message itself tells: by X-Sender and X-Receiver lines at its very top, else by its
    header. With RCPT such lines at the top are taken off, and where neither -f nor the header names a sender, it is
    you, at the configured hostname. A .json or .yaml file is dropped as the job that it is.
    """
    recipients = [argument for argument in arguments if "@" in argument and not Path(argument).exists()]
    files = [argument for argument in arguments if argument not in recipients] or ["-"]
    _check_usage(files, recipients, sender, from_header)
    settings = local_settings(config_path)
    jobs = [_job(file, settings, sender, recipients, from_header) for file in files]
    names = _drop_all(settings, jobs)
    try:
        if as_json:
            print_json([{"name": name} for name in names])
        else:
            click.echo("\n".join(names))
    except OSError as error:  # no failure: whoever took it for one would send them again
        unwritable(error, f"dropped all the same: {', '.join(names)}")


def _check_usage(files: list[str], recipients: list[str], sender: str | None, from_header: bool) -> None:
    from service.message.address import check_address, check_sender
    from service.message.job import JobError

    if from_header and recipients:
        raise click.UsageError("with -t the recipients come from the message: give no RCPT")
    try:
        if sender is not None:
            check_sender(sender)
        for recipient in recipients:
            check_address(recipient)
    except JobError as error:
        raise click.UsageError(clean(error)) from None
    for file in files:
        if file != "-" and not Path(file).exists():
            raise click.UsageError(f"there is no file {clean(file)}, and without an @ it is no recipient")
        if file.endswith(STRUCTURED) and (sender is not None or recipients or from_header):
            raise click.UsageError(f"{clean(file)} is a whole job: give no -f, -t or RCPT with it")


def _job(
    file: str, settings: Settings, sender: str | None, recipients: list[str], from_header: bool
) -> tuple[bytes, str]:
    """The content and the ending of the file to drop. Exits where it would be no job: then nothing is dropped."""
    from service.cli.letter import caller, judged, letter, names_sender
    from service.message.job import JobError

    name = "standard input" if file == "-" else file
    most = settings.limits.message_size + 1
    try:
        if file == "-":
            if sys.stdin is None:
                give_up("standard input is closed, and the message comes from there")
            data = sys.stdin.buffer.read(most)
        else:
            with open(file, "rb") as opened:
                data = opened.read(most)
        if file.endswith(STRUCTURED):
            ending = Path(file).suffix
            judged(data, settings, ending)
            return data, ending
        envelope = None if sender is None else sender.removeprefix("<").removesuffix(">")
        if envelope is None and recipients and not names_sender(data):
            envelope = caller(settings)
        return letter(data, settings, sender=envelope, recipients=recipients, from_header=from_header), ".eml"
    except OSError as error:
        give_up(f"{clean(name)}: {error.strerror or error}")
    except JobError as error:
        give_up(f"{clean(name)}: {clean(error)}")


def _drop_all(settings: Settings, jobs: list[tuple[bytes, str]]) -> list[str]:
    from service.cli.drop import DropError, drop

    names: list[str] = []
    try:
        for content, ending in jobs:
            names.append(drop(settings.queue.directory, content, ending))
    except DropError as error:
        dropped = [f"already dropped: {', '.join(names)}"] if names else []
        give_up(clean(error), *dropped)
    return names
