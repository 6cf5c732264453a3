"""Jobs in JSON and YAML: what their keys mean, and what is refused with the key's path."""

from __future__ import annotations

import json
from time import process_time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.message.job import Job, JobError
from tests.message.conftest import ADDED, attempt

LETTER = {"from": "Shop <shop@example.org>", "to": "ann@a.example", "subject": "Your order", "text": "Thank you."}
MESSAGE = {"sender": "shop@example.org", "recipients": ["ann@a.example"], "message": "Subject: x\n\nhi\n"}

ENDINGS = ["json", "yaml", "yml"]


def dump_yaml(value: object) -> str:
    """By the emitter in C: the one in Python takes a second over a long text."""
    text: str = yaml.dump(value, Dumper=yaml.CSafeDumper)
    return text


@pytest.fixture(params=ENDINGS)
def write(request):
    """`write(value)` returns a file's name and octets in each of the languages in turn."""
    dump = json.dumps if request.param == "json" else dump_yaml
    return lambda value: (f"a.{request.param}", dump(value).encode())


def test_the_contract_s_example_is_a_job(read):
    """Every key of the contract at once."""
    job = read(
        "a.yaml",
        """
        from: Shop <shop@example.org>       # also the envelope sender, unless `sender` is given
        to: [ann@example.net, "Bob <bob@example.com>"]     # also cc, bcc
        cc: carl@example.net, ANN <ann@EXAMPLE.net>
        bcc: [blind@example.net]
        subject: Your order
        text: Thank you.                    # and/or html
        attachments: [{path: invoice.pdf}]
        headers: {X-Order: "17"}
        not_before: 2026-12-01T08:00:00Z
        expires: 2d
        key: order-17
        in_doubt: hold
        priority: bulk
        tags: {order: 17}
        """,
        files={"invoice.pdf": b"%PDF"},
    )
    assert job.sender == "shop@example.org"
    assert job.recipients == ("ann@example.net", "bob@example.com", "carl@example.net", "blind@example.net")
    assert (job.not_before, job.expires, job.key, job.in_doubt) == (1796112000.0, 172800.0, "order-17", "hold")
    assert job.priority == "bulk"
    assert job.tags == {"order": 17}
    assert b"blind" not in job.content
    assert b"\r\nX-Order: 17\r\n" in job.content


def test_a_written_message_travels_as_it_is(read, write):
    """`message` is completed as an .eml is, and its envelope is the job's, not its own."""
    job = read(*write({**MESSAGE, "message": "X-Receiver: eve@e.example\nTo: foo\nBcc: x\n\nhi\r\n.\rü"}))
    assert (job.sender, job.recipients) == ("shop@example.org", ("ann@a.example",))
    assert job.content == ADDED + "X-Receiver: eve@e.example\r\nTo: foo\r\n\r\nhi\r\n. ü\r\n".encode()


@pytest.mark.parametrize("null", ["", "<>"])
def test_the_null_sender_can_be_given_in_both_forms(read, write, null):
    """`sender` is the envelope's, whatever `from` says."""
    assert read(*write({**MESSAGE, "sender": null})).sender == ""
    assert read(*write({**LETTER, "sender": null})).sender == ""
    assert read(*write({**LETTER, "sender": "b@b.example"})).sender == "b@b.example"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"colour": "red"}, "there is no key 'colour'"),
        ({"subject": 17}, "subject: this is a number, not text: put it in quotes"),
        ({"subject": True}, "subject: this is true or false, not text: put it in quotes"),
        ({"subject": ["Ticket"]}, "subject: this is a list, not text: put it in quotes"),
        ({"to": 17}, "to: this is a number, not text or a list: put it in quotes"),
        ({"to": [None]}, "to[0]: this is empty, not text: write it or leave it out"),
        ({"expires": True}, "expires: this is true or false, not a number or text: write 2d, 4h, 30m"),
        ({"headers": "x"}, 'headers: this is text, not keys and values: write {X-Order: "17"}'),
        ({"attachments": "x"}, "attachments: this is text, not a list: write [{path: invoice.pdf}]"),
        ({"attachments": ["x"]}, "attachments[0]: this is text, not keys and values: write {path: invoice.pdf}"),
        ({"to": None}, "no recipient"),
        ({"to": []}, "no recipient"),
        ({"to": "ann"}, "to: the address 'ann' has no domain"),
        ({"to": ["ann@a.example", "b@b.example\r\nRCPT TO:<eve@e.example>"]}, "to: "),
        ({"cc": "ann@a.example\0"}, "cc: "),
        ({"cc": "<ann\t@a.example>"}, "cc: '<ann\\t@a.example>' holds the control character U+0009"),
        ({"bcc": {"a": 1}}, "bcc: "),
        ({"from": None}, "from: "),
        ({"from": "a@a.example, b@b.example"}, "from: 'a@a.example, b@b.example' is not one address"),
        ({"sender": "a@a.example, b@b.example"}, "sender: "),
        ({"sender": "a\n@a.example"}, "sender: "),
        ({"subject": "a\r\nBcc: eve@e.example"}, "subject: 'a\\r\\nBcc: eve@e.example' holds the control"),
        ({"subject": "a\tb"}, "U+0009"),
        ({"subject": "a\x85b"}, "U+0085"),
        ({"text": "a\0b"}, "text: line 1 holds a NUL"),
        ({"html": "a\0b"}, "html: line 1 holds a NUL"),
        ({"attachments": [{"path": 3}]}, "attachments[0].path: "),
        ({"attachments": [{"path": "x"}]}, "x is not here"),
        ({"attachments": [{"path": ""}]}, "empty"),
        ({"attachments": [{"path": "x\n"}]}, "U+000A"),
        ({"attachments": [{"path": "x", "name": "a\r\nb"}]}, "U+000D"),
        ({"attachments": [{"name": "x"}]}, "attachments[0]: this has no path: write {path: invoice.pdf}"),
        ({"attachments": [{"path": "x", "mode": 1}]}, "there is no key 'mode'"),
        ({"headers": {"X-A": 17}}, "headers: 'X-A' has a value that is no text: put it in quotes"),
        ({"headers": {"X-A": "a\nb"}}, "headers: X-A: 'a\\nb' holds the control character U+000A"),
        ({"headers": {"X A": "a"}}, "headers: 'X A' is no field name"),
        ({"headers": {"X-A:": "a"}}, "is no field name"),
        ({"headers": {"X-Ü": "a"}}, "is no field name"),
        ({"headers": {"": "a"}}, "is no field name"),
        ({"headers": {"X-A\r\nBcc": "a"}}, "is no field name"),
        ({"headers": {"bCC": "a@b.example"}}, "headers: bCC cannot be set here: use the key 'bcc'"),
        ({"headers": {"Content-Type": "text/html"}}, "cannot be set here"),
        ({"headers": {"X-Sender": "a@b.example"}}, "use the key 'sender'"),
        ({"headers": {"MIME-Version": "1.0"}}, "cannot be set here"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "there twice"),
        ({"headers": {"Reply-To": "nobody"}}, "headers: Reply-To: the address 'nobody'"),
        ({"not_before": "tomorrow"}, "not_before: 'tomorrow'"),
        ({"not_before": "2026-12-01T08:00:00"}, "no time with an offset"),
        ({"not_before": "2026-13-01T08:00:00Z"}, "no time with an offset"),
        ({"not_before": "0001-01-01T00:00:00+23:59"}, None),
        ({"not_before": "9999-12-31T23:59:59Z"}, None),
        ({"not_before": "9999-12-31T23:59:59-00:01"}, "beyond the year 9999"),
        ({"not_before": "9999-12-31T23:59:59.999Z"}, None),
        ({"expires": "soon"}, "expires: 'soon'"),
        ({"expires": "0s"}, "expires: "),
        ({"expires": -1}, "expires: "),
        ({"expires": 1e300}, "expires: "),
        ({"expires": 10**400}, "expires: "),
        ({"expires": -(10**400)}, "expires: "),
        ({"key": ""}, "key: "),
        ({"key": "a" * 256}, "key: "),
        ({"key": "a\nb"}, "key: "),
        ({"in_doubt": "drop"}, "in_doubt: 'drop' is not known: write one of retry, hold"),
        ({"priority": "urgent"}, "priority: 'urgent' is not known: write one of high, normal, bulk"),
        ({"priority": "High"}, "priority: "),
        ({"priority": ""}, "priority: "),
        ({"priority": 1}, "priority: this is a number, not text: write one of high, normal, bulk"),
        ({"priority": ["high"]}, "priority: "),
        ({"prioritty": "high"}, "there is no key 'prioritty': did you mean priority?"),
        ({"attachments": [{"path": "x", "priority": "high"}]}, "there is no key 'priority'"),
        ({"tags": [1]}, "tags: this is a list, not keys and values: write {order: 17}"),
        ({"recipients": ["a@b.example"]}, "recipients: "),
        ({"message": "x"}, "from: a job has this or a message, not both"),
    ],
)
def test_a_wrong_value_refuses_the_whole_job_and_names_its_key(write, change, why):
    """Header injection, wrong types, keys that mean nothing: none gets as far as a message."""
    outcome = attempt(*write(LETTER | change))
    if why is None:
        assert isinstance(outcome, Job)
        return
    assert isinstance(outcome, JobError)
    assert why in str(outcome)
    assert str(outcome).isprintable()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sender": None}, "sender: "),
        ({"recipients": None}, "recipients: "),
        ({"recipients": []}, "no recipient"),
        ({"recipients": "foo"}, "recipients: the address 'foo'"),
        ({"message": "a\0b"}, "message: line 1 holds a NUL"),
        ({"message": "Subject: \x1b[31m\n\nhi"}, "message: line 1, in the header"),
    ],
)
def test_a_message_needs_its_envelope_and_must_be_one(write, change, why):
    """Neither is guessed from the other."""
    assert why in str(attempt(*write(MESSAGE | change)))


@pytest.mark.parametrize("base", [LETTER, MESSAGE])
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, "normal"),
        ({"priority": None}, "normal"),
        *(({"priority": each}, each) for each in ("high", "normal", "bulk")),
    ],
)
def test_a_job_may_say_what_goes_first(read, write, base, given, meant):
    """In both forms; who says nothing is normal."""
    assert read(*write(base | given)).priority == meant


def test_a_job_s_priority_is_its_key_and_no_field_of_its_message(read, write):
    """What describes a job says it in one place."""
    fields = {"headers": {"Priority": "urgent"}}
    assert read(*write(LETTER | fields)).priority == "normal"
    assert read(*write(LETTER | fields | {"priority": "bulk"})).priority == "bulk"
    assert read(*write(MESSAGE | {"message": "Priority: urgent\n\nhi\n"})).priority == "normal"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-12-01T08:00:00Z", 1796112000.0),
        ("2026-12-01t08:00:00z", 1796112000.0),
        ("2026-12-01 08:00:00+00:00", 1796112000.0),
        ("2026-12-01T09:30:00.25+01:30", 1796112000.25),
        ("2026-12-01T08:00:00.123456789Z", 1796112000.123456),
    ],
)
def test_a_time_is_rfc_3339_with_its_offset(read, write, text, seconds):
    """A time without an offset would be somebody's local time, and nobody could say whose."""
    assert read(*write({**LETTER, "not_before": text})).not_before == pytest.approx(seconds, abs=1e-6)


def test_a_yaml_timestamp_need_not_be_quoted(read):
    """It is read as the text that it is, never as a time without an offset."""
    text = "from: a@a.example\nto: b@b.example\nnot_before: 2026-12-01 08:00:00 +00:00\nexpires: 90\n"
    job = read("a.yaml", text)
    assert (job.not_before, job.expires) == (1796112000.0, 90.0)


def test_yaml_words_are_what_they_look_like(read):
    """YAML 1.2's core schema: `no` is Norwegian, 12:30 is a time of day, and only true and false are booleans."""
    tags = "a: no\n  b: 12:30\n  c: 1.5\n  d: true\n  e: ~\n  f: 0123\n  g: '17'\n  h: 12345678901234567890123\n  17: x"
    job = read("a.yaml", f"from: a@a.example\nto: b@b.example\nsubject: no\ntags:\n  {tags}\n")
    assert b"Subject: no\r\n" in job.content
    assert job.tags == {
        "a": "no",
        "b": "12:30",
        "c": 1.5,
        "d": True,
        "e": None,
        "f": 123,
        "g": "17",
        "h": 12345678901234567890123,
        "17": "x",
    }


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.json", b'{"from": "a@a.example", "from": "b@b.example"}', "the key 'from' is there twice"),
        ("a.json", b'{"tags": {"a": 1, "a": 2}}', "the key 'a' is there twice"),
        ("a.json", b"{", "line 1, column 2: this is no JSON"),
        ("a.json", b"", "the file is empty"),
        ("a.json", b"\xef\xbb\xbf \r\n", "the file is empty"),
        ("a.json", b'{"a": "x', "a string is not closed"),
        ("a.json", b'{"a": "x\\', "a string is not closed"),
        ("a.json", b'{"tags": {"a": NaN}}', "NaN"),
        ("a.json", b'{"tags": {"a": ' + b"9" * 5000 + b"}}", "JSON"),
        ("a.json", b'{"tags": {"a": 1e999}}', "too large"),
        ("a.yaml", b"tags: {a: 1e999}", "too large"),
        ("a.json", b"[1]", "a job is a mapping"),
        ("a.json", b"\xff", "line 1: the octet 0xFF is no UTF-8"),
        ("a.json", b'{"key": "\\ud800"}', "surrogate"),
        ("a.json", b"[" * 100_000, "deeper than 20"),
        ("a.json", b'{"a":' * 21, "deeper than 20"),
        ("a.yaml", b"from: a@a.example\nfrom: b@b.example\n", "line 2, column 1: the key 'from' is there twice"),
        ("a.yaml", b"tags: {a: 1, 'a': 2}", "there twice"),
        ("a.yaml", b"tags: &a {x: *a}", "aliases and anchors"),
        ("a.yaml", b"text: *a", "aliases and anchors"),
        ("a.yaml", b"text: !!python/object/apply:os.system [id]", "the tag"),
        ("a.yaml", b"text: !!str x", "the tag"),
        ("a.yaml", b"{a: 1}: 2", "a key is a list or a mapping"),
        ("a.yaml", b"a: 1\n---\nb: 1\n", "second document"),
        ("a.yaml", b"a: b: c", "line 1, column 5: this is no YAML"),
        ("a.yaml", b"subject: Re: f", ": put the value in quotes, all of it"),
        ("a.yaml", b'from: "Shop" <s@a.example>', "put the value in quotes, all of it"),
        ("a.yaml", b"tags:\n\ta: 1", "line 2, column 1: this is no YAML"),
        ("a.yaml", b"tags:\n\ta: 1", ": it is a tab, so put spaces in its place"),
        ("a.yaml", b"a: 1\n b: 2", "begin keys that belong together in one column"),
        ("a.yaml", b"a: \x01", "no YAML"),
        ("a.yaml", b"", "the file is empty"),
        ("a.yaml", b"# nothing", "a job is a mapping"),
        ("a.yaml", b"\xff", "no UTF-8"),
        ("a.yaml", b"[" * 100_000, "deeper than 20"),
        ("a.yaml", b"{a: " * 100_000, "deeper than 20"),
        ("a.yaml", b"- " * 100_000, "deeper than 20"),
        ("a.yaml", b"? " * 100_000, "a key is a list or a mapping"),
        ("a.toml", b"", "the ending of 'a.toml'"),
    ],
    ids=ascii,
)
def test_what_is_no_tidy_json_or_yaml_is_refused(refusal, name, data, why):
    """Duplicate keys, depth, aliases, anchors and tags, each with its place where the parser knows it."""
    assert why in refusal(name, data)


@pytest.mark.parametrize("brackets", ["[", "{a: ", "- "])
def test_depth_is_told_in_our_words_whichever_parser_finds_it(refusal, monkeypatch, brackets):
    """Newer libyaml stops by itself before it gives an event, older ones and the one in Python go on for ever."""
    told = refusal("a.yaml", brackets * 2000)
    monkeypatch.setattr(yaml, "CSafeLoader", yaml.SafeLoader)
    assert told == refusal("a.yaml", brackets * 2000) == "the job is nested deeper than 20 levels"


@pytest.mark.parametrize("levels", [20, 21])
def test_twenty_levels_are_allowed_and_one_more_is_not(write, levels):
    """The job itself is the first level, `tags` the second."""
    inside: object = 1
    for _ in range(levels - 2):
        inside = [inside]
    outcome = attempt(*write({**LETTER, "tags": {"a": inside}}))
    assert isinstance(outcome, Job) == (levels <= 20)


@pytest.mark.parametrize("key", ["message", "text", "html", "subject", "key"])
def test_only_message_text_and_html_may_be_long(write, key):
    """The structure, all but these three, is at most 1 MiB."""
    base = MESSAGE if key == "message" else LETTER
    long = "a\n" * 600_000 if key in ("message", "text", "html") else "a" * 1_200_000
    outcome = attempt(*write(base | {key: long}))
    assert isinstance(outcome, Job) == (key in ("message", "text", "html"))
    if isinstance(outcome, JobError):
        assert "1048576" in str(outcome)


@pytest.mark.parametrize("where", ["tags", "headers", "list"])
def test_a_long_text_hides_no_long_structure_below_or_beside_it(refusal, where):
    """The three names count at the top only, and only for text."""
    long = "a" * 1_200_000
    inside = {"tags": {"tags": {"text": long}}, "headers": {"headers": {"text": long}}, "list": {"text": [long]}}[where]
    assert "1048576" in refusal("a.json", json.dumps(LETTER | inside))
    assert "1048576" in refusal("a.yaml", dump_yaml(LETTER | inside))


@pytest.mark.parametrize(
    ("name", "head", "piece"),
    [
        ("a.json", b'{"tags": [', b"[],"),
        ("a.json", b'{"text": "', b"\\n"),
        ("a.json", b'{"text": "', b'\\"'),
        ("a.json", b'{"text" ', b" "),
        ("a.json", b"{", b'"a":1,'),
        ("a.yaml", b"tags: [", b"[],"),
        ("a.yaml", b"", b"# x\n"),
        ("a.yaml", b"text: ", b"a "),
        ("a.yaml", b'text: "', b"\\n"),
        ("a.yaml", b"text: |\n", b" a\n"),
        ("a.yaml", b"text: >\n", b" a\n\n"),
        ("a.yaml", b"", b"\n"),
        ("a.yaml", b"", b"a: "),
        ("a.yaml", b"", b"%x\n"),
    ],
)
def test_a_hostile_file_of_two_megabytes_is_read_in_little_time(name, head, piece):
    """Nothing is composed before it is known to be within bounds, and looking takes linear time."""
    start = process_time()
    attempt(name, head + piece * (2_000_000 // len(piece)))
    assert process_time() - start < 10


MORE_KEYS = ["cc", "bcc", "html", "attachments", "headers", "not_before", "expires", "key", "priority", "tags", "x"]
KEYS = st.sampled_from([*LETTER, *MESSAGE, *MORE_KEYS])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TEXTS = st.text(max_size=9)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=6)
SYNTAX = st.text(alphabet="{}[]\"\\:,-?&*!|>'%@#~ \n\tab1", max_size=60)


@given(st.dictionaries(KEYS, VALUES, max_size=6), st.sampled_from([{}, LETTER, MESSAGE]), st.sampled_from(ENDINGS))
def test_whatever_the_values_a_file_is_a_job_or_a_job_error(value, base, ending):
    """The readers raise nothing else, and a job has nothing on it that breaks a line."""
    data = json.dumps(base | value)
    outcome = attempt(f"a.{ending}", data)
    if isinstance(outcome, Job):
        assert outcome.recipients
        assert outcome.content.count(b"\r") == outcome.content.count(b"\n") == outcome.content.count(b"\r\n")
        assert b"\0" not in outcome.content


@given(SYNTAX | st.binary(max_size=60), st.sampled_from(ENDINGS))
def test_whatever_the_octets_a_file_is_a_job_or_a_job_error(data, ending):
    """Also where it is hardly JSON or YAML at all."""
    outcome = attempt(f"a.{ending}", data)
    assert isinstance(outcome, JobError)
    assert str(outcome)


def test_yaml_of_very_many_values_is_refused_before_they_are_read(read):
    """A value of two octets takes as long as a long one."""
    text = "from: a@a.example\nto: b@b.example\ntext: x\ntags: {l: [%s]}\n"
    assert len(read("a.yaml", (text % ("1," * 40_000)).encode()).tags["l"]) == 40_000
    with pytest.raises(JobError, match="over 50000 values"):
        read("a.yaml", (text % ("1," * 60_000)).encode())
