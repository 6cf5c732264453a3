"""Lists of mailboxes, as people and programs have written them these forty years."""

from __future__ import annotations

import gc
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.message.job import JobError
from service.message.mailboxes import Mailbox, addresses_in, parse_mailboxes


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("", []),
        (" , ,", []),
        ("a@b.example", [("", "a@b.example")]),
        ("a@b.example,c@d.example", [("", "a@b.example"), ("", "c@d.example")]),
        ("<a@b.example>", [("", "a@b.example")]),
        ("Ann <a@b.example>", [("Ann", "a@b.example")]),
        ("Ann B. Cole <a@b.example>", [("Ann B. Cole", "a@b.example")]),
        ('"Cole, Ann <x>" <a@b.example>', [("Cole, Ann <x>", "a@b.example")]),
        (r'"Ann \"A\" Cole" <a@b.example>', [('Ann "A" Cole', "a@b.example")]),
        ("Jürg Ä <a@b.example>", [("Jürg Ä", "a@b.example")]),
        ("[ext] Ann <a@b.example>", [("[ext] Ann", "a@b.example")]),
        ("=?utf-8?q?Cole,_Ann?= <a@b.example>", [("=?utf-8?q?Cole,_Ann?=", "a@b.example")]),
        ("a@b.example (Ann (the first), x@y)", [("", "a@b.example")]),
        (r"(a \) b) a@b.example", [("", "a@b.example")]),
        ("team: a@b.example, Carl <c@d.example>;", [("", "a@b.example"), ("Carl", "c@d.example")]),
        ("undisclosed-recipients:;", []),
        ("team:; , e@f.example", [("", "e@f.example")]),
        ("<@x.example,@y.example:a@b.example>", [("", "a@b.example")]),
        ("pete (his) . cole (account) @ b (host) . example", [("", "pete.cole@b.example")]),
        ('"a b"@c.example', [("", '"a b"@c.example')]),
        ("Ann <a@[192.0.2.1]>", [("Ann", "a@[192.0.2.1]")]),
        ("Ann\t<a@b.example>", [("Ann", "a@b.example")]),
    ],
)
def test_a_list_gives_its_names_and_addresses(text, boxes):
    """RFC 5322's examples, and what mailers made of them."""
    assert parse_mailboxes(text) == [Mailbox(*box) for box in boxes]
    assert addresses_in(text) == [address for _, address in boxes]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("foo", "'foo' has no domain"),
        ("Ann a@b.example", "'Ann a@b.example'"),
        ("a@b.example c@d.example", "before the @"),
        ("a@b.example; c@d.example", "use commas"),
        ("Ann <a@b.example> x", "something after"),
        ("Ann <a@b.example> <c@d.example>", "something after"),
        ("a@b.example <c@d.example>", "put the name in quotes"),
        ("Ann <a@b.example", "not closed"),
        ("Ann a@b.example>", "no address"),
        ('"Ann <a@b.example>', "quote that is not closed"),
        ("(Ann a@b.example", "comment that is not closed"),
        ("team: a@b.example", "not closed"),
        ("team: b: c@d.example;;", "group inside a group"),
        ("Ann <>", "no domain"),
        ("Ann <b>", "'b' has no domain"),
        ("a@[1.2", "'[' that is not closed"),
        ("a\\b@c.example", "a stray"),
        ("Ann\0 <a@b.example>", "U+0000"),
        ("Ann\r\nBcc: x <a@b.example>", "U+000D"),
        ("Ann\x1b[31m <a@b.example>", "U+001B"),
        ("a\ufffd@b.example", "U+FFFD"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_offender(text, why):
    """A guess at an address would send mail to a stranger."""
    with pytest.raises(JobError) as error:
        parse_mailboxes(text)
    assert why in str(error.value)


@given(st.text(alphabet='ab@.,;:<>()"\\[] =?ü\t\r\0', max_size=60) | st.text(max_size=60))
def test_nothing_but_a_job_error_comes_of_any_text(text):
    """Every text is a list of checked addresses or refused."""
    try:
        boxes = parse_mailboxes(text)
    except JobError:
        return
    assert all("@" in box.address for box in boxes)


@pytest.mark.parametrize(
    "piece", ['"\\', "(", ")(", "a:;", "a ", "<a.", "=?a?q?,", "[", ",<a@b>", "a@", "\\(", "(\\", '"a" ', "@a,", "=?"]
)
def test_a_hostile_list_takes_time_by_its_length_and_no_more(piece):
    """Sixteen times as long takes nowhere near 256 times as long."""

    def seconds(octets: int) -> float:
        text = piece * (octets // len(piece))
        gc.disable()  # it would look through what other tests have left
        try:
            start = process_time()
            with suppress(JobError):
                parse_mailboxes(text)
            return process_time() - start
        finally:
            gc.enable()

    seconds(1000)
    assert seconds(16 * 16_000) < 80 * max(min(seconds(16_000) for _ in range(3)), 0.001)


@pytest.mark.parametrize("one", ["a@b.c,", "A <a@b.c>,"])
def test_a_list_of_very_many_mailboxes_is_refused_though_they_are_all_the_same(one):
    """Each takes time, repeated or not."""
    assert len(parse_mailboxes(one * 10_000)) == 10_000
    with pytest.raises(JobError, match="over 10000 addresses"):
        parse_mailboxes(one * 10_001)
