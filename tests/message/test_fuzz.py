"""Whatever a dropped file says, it is a job that keeps the contract or a `JobError`: nothing else ever comes of it.

Valid jobs are taken apart and put together wrongly, so that what is odd gets as far as the code behind the first check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.message.address import ascii_form, check_address, check_sender, domain_of, same_mailbox
from service.message.job import Job, JobError
from service.message.mailboxes import parse_mailboxes
from service.smtp.body import DotStuffer
from tests.message.aiosmtpd_reader import received
from tests.message.conftest import attempt
from tests.message.oddities import EML, LETTER, MESSAGE, ODD_TEXTS, PIECES

MOST: Final = 5
"""Recipients of one job, here."""

CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
FILES: Final = {"invoice.pdf": b"%PDF-1.7\r\n.\r\n\0\xff", "x": b""}


def check(outcome: Job | JobError) -> None:
    """What is accepted keeps the contract; what is not has a reason that a terminal can show."""
    if isinstance(outcome, JobError):
        assert str(outcome)
        assert str(outcome).isprintable()
        return
    assert 1 <= len(outcome.recipients) <= MOST
    assert len({same_mailbox(address) for address in outcome.recipients}) == len(outcome.recipients)
    assert check_sender(outcome.sender) == outcome.sender
    for address in (outcome.sender, *outcome.recipients):
        assert not CONTROL.search(address)
    content = outcome.content
    assert content.endswith(b"\r\n")
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
    assert b"\0" not in content
    assert outcome.expires is None or 0 < outcome.expires <= 10 * 366 * 86_400
    assert outcome.not_before is None or -1e11 < outcome.not_before < 253_402_300_800
    assert outcome.key is None or (0 < len(outcome.key) <= 255 and not CONTROL.search(outcome.key))
    assert outcome.priority in ("high", "normal", "bulk")
    json.dumps(outcome.tags, allow_nan=False).encode()


def read(name: str, data: bytes | str) -> Job | JobError:
    """The job, or why it is none; anything else that is raised fails the test."""
    octets = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return attempt(name, octets, files=FILES, recipients=MOST, message_size=200_000)


# values that a job may hold where another was expected

NUMBERS: Final = (
    st.integers() | st.floats() | st.sampled_from([0, -1, 2**63, 2**64, 10**40, 10**400, -(10**400), 1e308])
)
TEXTS: Final = st.sampled_from(ODD_TEXTS) | st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc", "Cf"]))
SCALARS: Final = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES: Final = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=8
)

KEYS: Final = st.sampled_from([*LETTER, *MESSAGE, "bcc", "sender"]) | TEXTS
INNER_KEYS: Final = st.sampled_from(["path", "name", "type", "X-Order", "Reply-To", "Content-Type", "bcc"]) | TEXTS


@st.composite
def structures(draw: st.DrawFn) -> Any:
    """A valid job in which some values are others, some keys are missing, and some stand where they do not belong."""
    job: dict[str, Any] = dict(draw(st.sampled_from([LETTER, MESSAGE])))
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(sorted(job)) if job else KEYS)
        change = draw(st.sampled_from(["say", "say", "tag", "replace", "remove", "add", "wrap", "nest", "repeat"]))
        if change == "say":
            job["message" if "message" in job else draw(st.sampled_from(["subject", "text", "html"]))] = draw(TEXTS)
        elif change == "tag":
            job["tags"] = {draw(TEXTS): draw(VALUES)}
        elif change == "replace":
            job[key] = draw(VALUES)
        elif change == "remove":
            job.pop(key, None)
        elif change == "add":
            job[draw(KEYS)] = draw(VALUES)
        elif change == "wrap":
            job[key] = [job.get(key)]
        elif change == "nest":
            job[key] = {draw(INNER_KEYS): draw(VALUES), draw(INNER_KEYS): job.get(key)}
        else:
            job[key] = [job.get(key)] * draw(st.integers(0, MOST + 2))
    return draw(st.sampled_from([job, job, job, [job], None, "x"]) | VALUES) if draw(st.integers(0, 9)) == 0 else job


def as_json(value: Any, plain: bool) -> str:
    """The value in JSON, its text with escapes or without."""
    return json.dumps(value, ensure_ascii=plain)


def as_yaml(value: Any, plain: bool) -> str:
    """The value in YAML, in blocks or in flow."""
    return yaml.safe_dump(value, allow_unicode=not plain, default_flow_style=plain)


@settings(max_examples=300)
@given(structures(), st.booleans())
@example({**LETTER, "expires": 10**400}, True)
@example({**LETTER, "not_before": "9999-12-31T23:59:59-23:59"}, True)
def test_any_structure_is_a_job_that_keeps_the_contract_or_a_job_error(value, plain):
    """In each of the languages."""
    check(read("a.json", as_json(value, plain)))
    for ending in ("yaml", "yml"):
        check(read(f"a.{ending}", as_yaml(value, plain)))


WHOLE: Final = [
    write(job, plain).encode() for write in (as_json, as_yaml) for job in (LETTER, MESSAGE) for plain in (True, False)
]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A valid file into which pieces were put, from which some were cut, or of which some came twice."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 30)))
        put = draw(st.sampled_from(PIECES) | st.binary(max_size=8) | st.just(data[start:end] * 2))
        data = data[:start] + put + data[end:]
    return data


@settings(max_examples=400)
@given(mutated(WHOLE), st.sampled_from(["json", "yaml", "yml"]))
def test_any_mutation_of_a_file_is_a_job_that_keeps_the_contract_or_a_job_error(data, ending):
    """Octets changed below the grammar: what is left of JSON and YAML, in both readers."""
    check(read(f"a.{ending}", data))


@settings(max_examples=400)
@given(mutated([EML, EML.replace(b"\r\n", b"\n"), EML.partition(b"Date")[2]]))
def test_any_mutation_of_a_message_is_a_job_that_keeps_the_contract_or_a_job_error(data):
    """Envelope block, address fields and text."""
    check(read("a.eml", data))


@given(st.binary(max_size=300), st.sampled_from(["a.eml", "a.json", "a.yaml", "a.yml", "a.toml", "\x1b.eml", ".json"]))
def test_any_octets_are_a_job_that_keeps_the_contract_or_a_job_error(data, name):
    """No grammar at all."""
    check(read(name, data))


def test_the_jobs_that_are_mutated_are_jobs():
    """Else the tests above would only ever see the first check."""
    for data, ending in zip(WHOLE, ["json"] * 4 + ["yaml"] * 4, strict=True):
        assert isinstance(read(f"a.{ending}", data), Job)
    assert isinstance(read("a.eml", EML), Job)


# the rules for addresses

CHARACTERS: Final = 'aZ0.@"\\<>()[],;: -_+=/\t\r\n\0\x7f\x85ü用\u0300\u200c\u200d\u202e\u2028\ufeff\ufffd。．\U0001f600'
ADDRESS_TEXTS: Final = (
    st.text(alphabet=CHARACTERS, max_size=40)
    | st.text(max_size=40)
    | TEXTS
    | st.builds("{}@{}".format, TEXTS, TEXTS)
    | st.builds(lambda label: f"a@{label}.example", st.text(min_size=1, max_size=70))
    | st.builds(lambda octets: f"a@xn--{octets}.example", st.text("abz019-", max_size=60))
    | st.builds(lambda inside: f"a@[{inside}]", st.text("0123456789abcdefABCDEFIPv:.%", max_size=50))
)


@pytest.mark.parametrize("rule", [check_address, check_sender, parse_mailboxes])
@given(ADDRESS_TEXTS)
@settings(max_examples=300)
def test_the_rules_for_addresses_raise_nothing_but_job_errors(rule: Callable[[str], Any], text):
    """And say why in words that a terminal can show."""
    refusal: JobError | None = None
    try:
        rule(text)
    except JobError as error:
        refusal = error
    assert refusal is None or str(refusal).isprintable()


@given(ADDRESS_TEXTS)
@settings(max_examples=600)
def test_what_is_an_address_can_be_sent_compared_and_routed(text):
    """It breaks no line, its domain is ASCII for the DNS, and its ASCII form is an address that means the same."""
    try:
        address = check_address(text)
    except JobError:
        return
    assert address == text
    assert not CONTROL.search(address)
    assert len(address.encode()) <= 254
    assert domain_of(address).isascii()
    plain = ascii_form(address)
    if plain is not None:
        assert plain.isascii()
        assert check_address(plain) == plain
        assert same_mailbox(plain) == same_mailbox(address)
        assert domain_of(plain) == domain_of(address)


@given(ADDRESS_TEXTS)
def test_what_a_list_holds_are_addresses(text):
    """Each passes the rule by itself."""
    try:
        boxes = parse_mailboxes(text)
    except JobError:
        return
    for box in boxes:
        assert check_address(box.address) == box.address
        assert not CONTROL.search(box.name.replace("\t", ""))


# the round trip

DOTTY: Final = st.lists(
    st.sampled_from([b".", b"..", b"\r\n", b"\n", b"\r", b"a", b"\xff", b"QUIT\r\n", b"\r\n.\r\n", b"\n.\n"])
)


@settings(max_examples=100)
@given(DOTTY.map(b"".join), st.lists(st.integers(1, 40), max_size=4))
@example(b".", [1])
@example(b".\r\n.\r\n.\r\n", [1, 2])
@example(b"\r\n.\rMAIL FROM:<>\n.\r\n", [])
def test_content_comes_out_of_a_server_as_it_was_stored(body, lengths):
    """aiosmtpd takes off the dots that were put on, in pieces of any length, and sees one message and no more."""
    job = read("a.eml", b"X-Sender: a@a.example\nX-Receiver: b@b.example\nDate: x\nMessage-ID: <x@y>\n\n" + body)
    assert isinstance(job, Job)
    assert received(stuffed(job.content, lengths)) == [job.content]


@settings(max_examples=50)
@given(structures())
def test_what_any_structure_became_comes_out_of_a_server_as_it_was_stored(value):
    """Whatever the text and the headers were."""
    job = read("a.json", as_json(value, True))
    if isinstance(job, Job):
        assert received(stuffed(job.content, [])) == [job.content]


def stuffed(content: bytes, lengths: list[int]) -> bytes:
    """The content as it is sent, in pieces of these lengths and a last one with the rest."""
    stuffer = DotStuffer()
    sent = []
    for length in lengths:
        sent.append(stuffer.stuff(content[:length]))
        content = content[length:]
    return b"".join([*sent, stuffer.stuff(content), stuffer.end()])
