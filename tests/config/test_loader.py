"""What a file says, and what is wrong with it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import yaml

from config import loader, system
from config.loader import ConfigError, find, load
from config.settings import Relay, Retry, Secret, Settings, SiteRest

EXAMPLE = Path(__file__).with_name("every_key.yaml")


def test_every_key_means_what_it_says(tmp_path):
    """A file with all of them, in the forms that people write."""
    secret = tmp_path / "relay-password"
    secret.write_text("hunter2\n")
    settings = load(str(EXAMPLE), {"SECRET": str(secret)})
    first, second = settings.routes
    assert first.domains == ("*.example.net", "example.com")
    assert (first.relay, first.tls) == ((Relay("smtp", "10.0.0.5", 2525),), "none")
    assert (second.username, second.password, second.tls, second.ca_file) == ("user", "hunter2", "verify", None)
    assert (first.connections, first.rate) == (None, None)
    assert (second.connections, second.rate) == (3, 0.5)
    assert settings.hostname == "mail.example.org"
    defaults = Settings(routes=settings.routes, hostname=settings.hostname)
    assert settings == defaults


def test_all_faults_are_told_at_once_with_file_line_and_path(faults):
    """One line a fault, in the order of the file."""
    assert faults("""\
        routes: [{domains: ["*"], relay: smtp://relay.example}]
        retry:
          delays: [1m, soon]
          jitter: 2
        limts: {}
        http: {listen: 8025}
    """) == [
        "deferd.yaml:3: retry.delays[1]: 'soon' is no duration; write 90s, 5m, 1h30m or 5d",
        "deferd.yaml:4: retry.jitter: '2' is too large; the most is 1.0",
        "deferd.yaml:5: limts: is no key that deferd knows; did you mean limits?",
        "deferd.yaml:6: http.listen: '8025' is a number, and this is address:port;"
        " write 127.0.0.1:8025 or [::1]:8025, or null for none",
    ]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("queue: {directory: 5}", "queue.directory"),
        ("queue: {directory: }", "queue.directory"),
        ("queue: []", "queue"),
        ("queue: spool", "queue"),
        ("queue: {results: null}", "queue.results"),
        ("hostname: 5", "hostname"),
        ("hostname: true", "hostname"),
        ("hostname: mail example", "hostname"),
        ("hostname: '[300.1.1.1]'", "hostname"),
        ("retry: {delays: 1m}", "retry.delays"),
        ("retry: {delays: []}", "retry.delays"),
        ("retry: {delays: [0]}", "retry.delays[0]"),
        ("retry: {delays: [-1m]}", "retry.delays[0]"),
        ("retry: {jitter: -0.1}", "retry.jitter"),
        ("retry: {jitter: '0.1'}", "retry.jitter"),
        ("retry: {jitter: nan}", "retry.jitter"),
        ("retry: {max_age: null}", "retry.max_age"),
        ("retry: {site_rest: {first: 10m}}", "retry.site_rest.first"),
        ("retry: {site_rest: {longest: 0.5s}}", "retry.site_rest.longest"),
        ("limits: {connections: 0}", "limits.connections"),
        ("limits: {connections: 1.5}", "limits.connections"),
        ("limits: {connections: '5'}", "limits.connections"),
        ("limits: {connections: [5]}", "limits.connections"),
        ("limits: {connections: 012x}", "limits.connections"),
        ("limits: {message_size: 0}", "limits.message_size"),
        ("limits: {message_size: large}", "limits.message_size"),
        ("limits: {recipients: -1}", "limits.recipients"),
        ("limits: {rate_per_site: 30}", "limits.rate_per_site"),
        ("limits: {rate_per_site: 0/m}", "limits.rate_per_site"),
        ("limits: {rate_per_site: [30/m]}", "limits.rate_per_site"),
        ("limits: {rate_per_sites: 30/m}", "limits.rate_per_sites"),
        ("timeouts: {connect: 0}", "timeouts.connect"),
        ("timeouts: {conect: 5s}", "timeouts.conect"),
        ("http: {listen: 127.0.0.1}", "http.listen"),
        ("http: {listen: '127.0.0.1:99999'}", "http.listen"),
        ("http: {listen: '::1:8025'}", "http.listen"),
        ("http: {listen: 'example.org:8025'}", "http.listen"),
        ("log: {level: loud}", "log.level"),
        ("log: {format: yes}", "log.format"),
        ("routes: []", "routes"),
        ("routes: {}", "routes"),
        ("routes:", "routes"),
        ("routes: [smtp://a.example]", "routes[0]"),
        ("routes: [{relay: smtp://a.example}]", "routes[0].domains"),
        ("routes: [{domains: ['*']}]", "routes[0].relay"),
        ("routes: [{domains: [], relay: smtp://a.example}]", "routes[0].domains"),
        ("routes: [{domains: '*', relay: []}]", "routes[0].relay"),
        ("routes: [{domains: '*', relay: smtp://a.example, connections: 0}]", "routes[0].connections"),
        ("routes: [{domains: '*', relay: smtp://a.example, connections: 3/s}]", "routes[0].connections"),
        ("routes: [{domains: '*', relay: smtp://a.example, rate: 30}]", "routes[0].rate"),
        ("routes: [{domains: '*', relay: smtp://a.example, rate: fast}]", "routes[0].rate"),
    ],
)
def test_a_wrong_value_is_told_by_its_path(faults, text, path):
    """Types, ranges, choices and what is missing."""
    (fault,) = faults(text)
    line = 1 if "routes:" in text else 2
    assert fault.startswith(f"deferd.yaml:{line}: {path}: ")


@pytest.mark.parametrize(
    ("pattern", "read"),
    [
        ("Example.COM", "example.com"),
        ("*.Example.net.", "*.example.net"),
        ("*", "*"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("'[192.0.2.1]'", "[192.0.2.1]"),
    ],
)
def test_a_pattern_becomes_an_a_label(loaded, pattern, read):
    """Patterns are kept in the form that domains are compared in."""
    settings = loaded(f"routes: [{{domains: [{pattern if pattern[0] != '*' else repr(pattern)}], relay: smtp://a}}]")
    assert settings.routes[0].domains == (read,)


@pytest.mark.parametrize(
    "pattern", ["*example.com", "a.*.com", "ann@example.com", "exa mple", "-a.com", "a..b", "**", "*."]
)
def test_a_bad_pattern_is_refused(faults, pattern):
    """A pattern that could never fit, or is not what it looks like."""
    (fault,) = faults(f"routes: [{{domains: ['{pattern}'], relay: smtp://a.example}}]")
    assert fault.startswith("deferd.yaml:1: routes[0].domains[0]: ")


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("smtp://a.example", Relay("smtp", "a.example", 25)),
        ("SMTPS://A.example", Relay("smtps", "a.example", 465)),
        ("lmtp://127.0.0.1", Relay("lmtp", "127.0.0.1", 24)),
        ("smtp://[2001:DB8::25]:587/", Relay("smtp", "2001:db8::25", 587)),
        ("smtp://mail_server:2525", Relay("smtp", "mail_server", 2525)),
    ],
)
def test_a_relay_is_a_url(loaded, url, relay):
    """The port is the scheme's own where none is given."""
    assert loaded(f"routes: [{{domains: '*', relay: '{url}'}}]").routes[0].relay == (relay,)
    assert str(relay).startswith(url.lower()[:7])


NO_RELAYS = """
    a.example a.example:25 http://a smtp:// smtp://:25 smtp://a:0 smtp://a:65536 smtp://a:x smtp://a/b smtp://::1
    smtp://[::1 smtp://1.2.3 smtp://[1.2.3.4] smtp://a,b
"""


@pytest.mark.parametrize("url", NO_RELAYS.split())
def test_a_bad_relay_is_refused(faults, url):
    """No scheme, another scheme, no host, a bad port, a path, IPv6 without brackets."""
    (fault,) = faults(f"routes: [{{domains: '*', relay: [smtp://good.example, '{url}']}}]")
    assert fault.startswith("deferd.yaml:1: routes[0].relay[1]: ")


def test_a_number_where_a_relay_is_wanted_is_told_what_a_relay_is(faults):
    """In quotes it would be none either."""
    (fault,) = faults("routes: [{domains: '*', relay: 25}]")
    assert "'25' is a number, and this is a relay; write smtp://host:port" in fault


def test_numbers_mean_what_they_look_like(loaded):
    """YAML 1.1's octals, sexagesimals and switches do not happen here."""
    settings = loaded("limits: {connections: 010}\nretry: {delays: [90, 1h30m], jitter: 0}\nlog: {level: debug}")
    assert settings.limits.connections == 10
    assert settings.retry == Retry(delays=(90, 5400), jitter=0)


def test_a_wrong_rate_says_what_to_write(faults):
    """File, line, key, value and remedy."""
    assert faults("""\
        routes:
          - domains: "*"
            relay: smtp://a.example
            rate: 30 per minute
        limits: {rate_per_site: 0.5/d}
    """) == [
        "deferd.yaml:4: routes[0].rate: '30 per minute' is no rate; write 10/s, 30/m, 1000/h or 5000/d",
        "deferd.yaml:5: limits.rate_per_site: '0.5/d' is too slow; the least is 1/d, and null is no limit",
    ]


def test_limits_are_for_every_site_and_for_a_route_of_their_own(loaded):
    """A rate is in messages a second; where a route says nothing it leaves it to the limits."""
    settings = loaded("""\
        limits: {connections_per_site: 10, rate_per_site: 1000/h}
        routes:
          - {domains: a.example, relay: smtp://a.example, connections: 2, rate: "10/s"}
          - {domains: "*", relay: smtp://b.example, connections: null, rate: null}
    """)
    assert settings.limits.rate_per_site == pytest.approx(1000 / 3600)
    assert [(route.connections, route.rate) for route in settings.routes] == [(2, 10.0), (None, None)]


def test_null_turns_off_what_can_be_off(loaded):
    """`warn_after`, `http.listen`; the hostname is then the machine's."""
    settings = loaded("retry: {warn_after: null}\nhttp: {listen: ~}\nhostname: null")
    assert settings.retry.warn_after is None
    assert settings.http.listen is None
    assert settings.hostname == system.machine_name()


def test_a_section_keeps_the_defaults_of_what_it_leaves_out(loaded):
    """Down to the innermost."""
    assert loaded("retry: {site_rest: {longest: 1h}}").retry == Retry(site_rest=SiteRest(longest=3600))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &x 1\nb: *x", "anchor"),
        ("a: !!python/object/apply:os.getcwd []", "tag"),
        ("[" * 5000, "deep"),
        ("routes: [\n", "no YAML"),
        ("a: 1\n---\nb: 1", "more than one document"),
        ("- a", "no mapping"),
        ("? [a]\n: b", "for a key"),
        ("#" * 2_000_000, "larger"),
    ],
)
def test_a_hostile_document_is_refused_before_it_is_composed(write, text, what):
    """No aliases, no tags, no depth, no size; and no crash of the C loader."""
    with pytest.raises(ConfigError, match=what):
        load(write(text), {})


@pytest.mark.parametrize("parser", [yaml.CSafeLoader, yaml.SafeLoader])
@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ("hostname: a: b", 2, "put the value in quotes, all of it"),
        ("hostname: 'a' b", 2, "put the value in quotes, all of it"),
        ("hostname: @b", 2, "put the value in quotes, all of it"),
        ("retry:\n\tjitter: 0", 3, "it is a tab, so put spaces in its place"),
        ("log:\n  level: info\n\tformat: json", 4, "it is a tab, so put spaces in its place"),
        ("retry: 1\n jitter: 0", 3, "begin keys that belong together in one column"),
    ],
)
def test_what_is_no_yaml_is_told_with_a_remedy(faults, monkeypatch, parser, text, line, remedy):
    """Where the parser's own words help nobody who does not know how it goes about its work."""
    monkeypatch.setattr(yaml, "CSafeLoader", parser)
    (fault,) = faults(text)
    assert fault.startswith(f"deferd.yaml:{line}: is no YAML: ")
    assert fault.endswith(f"; {remedy}")


@pytest.mark.parametrize("brackets", ["[", "{a: "])
def test_depth_is_told_in_our_words_whichever_parser_finds_it(write, monkeypatch, brackets):
    """Newer libyaml stops by itself before it gives an event, older ones and the one in Python go on for ever."""
    document = write(brackets * 5000)
    told = []
    for loader_class in (yaml.CSafeLoader, yaml.SafeLoader):
        monkeypatch.setattr(yaml, "CSafeLoader", loader_class)
        with pytest.raises(ConfigError) as error:
            load(document, {})
        told.append(error.value.problems)
    assert told[0] == told[1] == (f"{document}:1: is nested more than 20 levels deep",)


def test_a_key_given_twice_is_a_fault(faults):
    """The line of the second, and where the first is."""
    assert faults("retry:\n  jitter: 0.1\n  jitter: 0.2\n") == [
        "deferd.yaml:4: retry.jitter: is given twice (first on line 3); remove one"
    ]


def test_a_file_that_is_no_text_is_refused(tmp_path):
    """Not UTF-8, a folder, not there."""
    path = tmp_path / "deferd.yaml"
    path.write_bytes(b"# ours\nhostname: \xff\n")
    with pytest.raises(ConfigError, match=r"deferd\.yaml:2: is not UTF-8; save the file as such"):
        load(str(path), {})
    with pytest.raises(ConfigError, match="no regular file"):
        load(str(tmp_path), {})
    with pytest.raises(ConfigError, match=r"no such file; -c names it"):
        load(str(tmp_path / "none.yaml"), {})


def test_more_connections_than_open_files_is_a_fault(faults, monkeypatch):
    """The hard limit counts: the daemon raises the soft one by itself."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 264))
    (fault,) = faults("limits: {connections: 201}")
    assert fault.startswith("deferd.yaml:2: limits.connections: is 201, and the system's hard limit")
    assert "allows 200" in fault
    (fault,) = faults("")
    assert "limits.connections: is 500" in fault


def test_the_soft_limit_of_open_files_is_raised(monkeypatch):
    """To twice the connections and some, within the hard limit."""
    now = [(100, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.append(limits))
    assert system.raise_open_files(2000) == 4096
    assert system.raise_open_files(10_000) == 5000
    assert now[1:] == [(4096, 5000), (5000, 5000)]
    assert system.raise_open_files(10) == 5000
    assert len(now) == 3


def test_the_file_is_found_in_the_contracts_order(tmp_path, monkeypatch):
    """-c, then DEFERD_CONFIG, then /etc, then the working directory's, then the reference."""
    monkeypatch.chdir(tmp_path)
    etc, local, named = (tmp_path / name for name in ("etc.yaml", "local.yaml", "named.yaml"))
    monkeypatch.setattr(loader, "PLACES", (str(etc), "local.yaml"))
    assert find(None, {}) == loader.REFERENCE
    local.touch()
    assert find(None, {}) == "local.yaml"
    etc.touch()
    assert find(None, {}) == str(etc)
    with pytest.raises(ConfigError, match="DEFERD_CONFIG names it"):
        find(None, {"DEFERD_CONFIG": str(named)})
    named.touch()
    assert find(None, {"DEFERD_CONFIG": str(named)}) == str(named)
    assert find(str(local), {"DEFERD_CONFIG": str(named)}) == str(local)


def test_a_file_that_may_not_be_looked_at_is_not_passed_over(tmp_path, monkeypatch):
    """Else another configuration would be used in its place, and nobody told."""
    stat = Path.stat

    def refuse(path, **options):
        if str(path).startswith("/etc/deferd"):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert find(None, {}) == "/etc/deferd/deferd.yaml"


def test_a_secret_does_not_show():
    """In no repr, though it is the text itself."""
    assert "hunter2" not in repr([Secret("hunter2")])
    assert Secret("hunter2") == "hunter2"


def test_who_only_looks_at_the_queue_needs_no_password(write):
    """Without the routes nothing of them is read: no file, no variable."""
    text = """\
        queue: {directory: /tmp/q}
        routes: [{domains: "*", relay: smtp://a.example, username: "${NONE}", password_file: /none}]
    """
    settings = load(write(text), {"DEFERD_ROUTES__0__TLS": "verify"}, routes=False)
    assert settings.queue.directory == "/tmp/q"
    assert settings.routes == ()
