"""Lists of mailboxes as header fields and jobs have them (RFC 5322, 3.4): `Ann <ann@a.example>, bob@b.example`.

Groups, comments, quoted names, encoded words, and the routes and loose spaces of old (RFC 5322, 4.4) are understood.
What is not understood is refused with the offender named, never guessed at: a guess would send mail to a stranger.
Takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Final, NamedTuple

from service.message.address import check_address, first_control
from service.message.job import JobError, shown

__all__ = ["Mailbox", "addresses_in", "parse_mailboxes"]


MOST: Final = 10_000
"""Mailboxes in one list, repeated ones too: each takes some microseconds, and a list may be as long as its file."""


class Mailbox(NamedTuple):
    """An address, checked, and the display name beside it ("" where there is none), without its quotes."""

    name: str
    address: str


class _Token(NamedTuple):
    kind: str
    text: str
    spaced: bool


# An encoded word is one token, so that a comma inside it (RFC 2047 forbids it, people send it) splits nothing.
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)
      | (?P<word>=\?[^? \t]+\?[bBqQ]\?[^? \t]*\?=|[^ \t()<>\[\]:;@\\,."]+)
      | (?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")
      | (?P<literal>\[[^\[\]\\]*\])
      | (?P<special>[<>:;@,.])""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"[^()\\]+|\\.|[()]")
_PLAIN_LIST = re.compile(r"[^()<>\[\]:;\\\"]*")
_PAIR = re.compile(r"\\(.)")


def parse_mailboxes(text: str, domain: str = "") -> list[Mailbox]:
    """The mailboxes of an address list, groups flattened, in order. `text` is unfolded (RFC 5322, 2.2.3).

    An address without a domain gets `domain`, where there is one. Raises `JobError` where the text is no list of
    mailboxes, an address in it is none, or there are over `MOST`.
    """
    control = first_control(text, allowed="\t")
    if control is not None:
        raise JobError(f"the address list {shown(text)} holds the control character U+{ord(control):04X}")
    if _PLAIN_LIST.fullmatch(text):
        parts = (part for piece in text.split(",") if (part := piece.strip(" \t")))
        return _few(Mailbox("", _checked(part, domain)) for part in parts)
    return _few(_mailboxes(text, domain))


def _few(mailboxes: Iterable[Mailbox]) -> list[Mailbox]:
    found = list(islice(mailboxes, MOST + 1))
    if len(found) > MOST:
        raise JobError(f"there are over {MOST} addresses in one list: split it")
    return found


def _checked(address: str, domain: str) -> str:
    return check_address(address if "@" in address or not domain else f"{address}@{domain}")


def addresses_in(text: str, domain: str = "") -> list[str]:
    """The checked addresses of an address list; completes, and raises, as `parse_mailboxes` does."""
    return [mailbox.address for mailbox in parse_mailboxes(text, domain)]


def _mailboxes(text: str, domain: str) -> Iterator[Mailbox]:
    """Split the list at its commas, groups and their ends, and read what stands between."""
    element: list[_Token] = []
    in_group = in_angle = False
    for token in _tokens(text):
        divides = token.kind == "special" and token.text in ",:;" and not in_angle
        if not divides:
            if token.kind == "special" and token.text in "<>":
                in_angle = token.text == "<"
            element.append(token)
            continue
        if token.text == ":":
            if in_group:
                raise JobError(f"the address list {shown(text)} has a group inside a group")
            in_group = True
        else:
            if token.text == ";" and not in_group:
                raise JobError(f"the address list {shown(text)} has a ';' that ends no group: use commas")
            if element:
                yield _mailbox(element, domain)
            in_group = in_group and token.text == ","
        element = []
    if in_angle or in_group:
        raise JobError(f"the address list {shown(text)} has a {'<' if in_angle else 'group'} that is not closed")
    if element:
        yield _mailbox(element, domain)


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens of the list without comments and spaces; each tells whether one of these came before it."""
    position, spaced = 0, False
    while position < len(text):
        if text[position] == "(":
            position, spaced = _past_comment(text, position), True
            continue
        found = _TOKEN.match(text, position)
        if found is None:
            what = {'"': "a quote that is not closed", "[": "a '[' that is not closed"}.get(text[position])
            raise JobError(
                f"the address list has {what or 'a stray ' + shown(text[position])}: {shown(text[position:])}"
            )
        position = found.end()
        kind = found.lastgroup or ""
        if kind == "space":
            spaced = True
            continue
        yield _Token(kind, found.group(), spaced)
        spaced = False


def _past_comment(text: str, start: int) -> int:
    """The position after the comment that starts here; comments nest (RFC 5322, 3.2.2)."""
    depth = 0
    for piece in _COMMENT.finditer(text, start):
        if piece.group() == "(":
            depth += 1
        elif piece.group() == ")":
            depth -= 1
            if depth == 0:
                return piece.end()
    raise JobError(f"the address list has a comment that is not closed: {shown(text[start:])}")


def _mailbox(element: list[_Token], domain: str) -> Mailbox:
    """What stands between two commas: `address` or `name <address>`."""
    angle = next((i for i, token in enumerate(element) if token.kind == "special" and token.text == "<"), None)
    if angle is None:
        return Mailbox("", _checked(_spec(element, element), domain))
    name, inside, last = element[:angle], element[angle + 1 : -1], element[-1]
    if last.text != ">" or last.kind != "special" or any(t.kind == "special" and t.text in "<>" for t in inside):
        raise JobError(f"{shown(_words(element))} has something after its '>': put a comma between addresses")
    if any(token.kind == "special" and token.text != "." for token in name):
        raise JobError(f"{shown(_words(element))} has a special character in its name: put the name in quotes")
    return Mailbox(_words(name), _checked(_spec(inside, element), domain))


def _spec(tokens: list[_Token], element: list[_Token]) -> str:
    """The address itself, without the spaces and comments that old mail has around its dots (RFC 5322, 4.4)."""
    if tokens and tokens[0].text == "@":  # a source route, which a receiver is told to ignore (RFC 5321, appendix C)
        colon = next((i for i, token in enumerate(tokens) if token.text == ":"), len(tokens))
        tokens = tokens[colon + 1 :]
    for one, next_one in pairwise(tokens):
        if one.kind != "special" and next_one.kind != "special":
            raise JobError(f"{shown(_words(element))} is no address: it has a space or quote that splits it")
    return "".join(token.text for token in tokens)


def _words(tokens: list[_Token]) -> str:
    """The tokens as a person reads them: quotes taken off, spaces kept as one."""
    return "".join(
        (" " if token.spaced and i else "")
        + (_PAIR.sub(r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text)
        for i, token in enumerate(tokens)
    )
