"""What the environment puts in."""

from __future__ import annotations

import pytest

from config.settings import Relay


def test_a_variable_is_put_into_a_value(loaded):
    """Whole or part of it, and never looked through again; the value is text whatever it looks like."""
    settings = loaded(
        """\
        hostname: ${NAME}.example.org
        limits: {connections: "${N}"}
        routes: [{domains: "*", relay: "smtp://a:${PORT:-2525}", username: "$${x}", password: "${PW}"}]
        """,
        NAME="mail",
        N="7",
        PW="${NAME}12345",
    )
    assert settings.hostname == "mail.example.org"
    assert settings.limits.connections == 7
    route = settings.routes[0]
    assert route.relay == (Relay("smtp", "a", 2525),)
    assert (route.username, route.password) == ("${x}", "${NAME}12345")


def test_a_number_is_a_good_password_when_it_comes_from_outside(loaded):
    """Text from the environment has no quotes to put on."""
    route = "{domains: '*', relay: smtp://a.example, username: '${U}', password: '${P}'}"
    assert loaded(f"routes: [{route}]", U="1", P="12345").routes[0].password == "12345"


def test_a_default_serves_where_the_variable_is_unset_or_empty(loaded):
    """As in the shell."""
    text = "hostname: ${NAME:-mail.example.org}"
    assert loaded(text).hostname == loaded(text, NAME="").hostname == "mail.example.org"
    assert loaded(text, NAME="other.example").hostname == "other.example"


def test_a_missing_variable_is_a_fault(faults):
    """It names the key, the line and the variable."""
    assert faults("hostname: mail\nlog:\n  level: ${LEVEL}") == [
        "deferd.yaml:4: log.level: needs the variable LEVEL, which is not set; set it or write ${LEVEL:-default}"
    ]


@pytest.mark.parametrize("text", ["${", "${}", "${A B}", "${1A}", "${A", "${A:default}", "${A:-${B}}"])
def test_a_reference_that_names_nothing_is_a_fault(faults, text):
    """An open brace, no name, a wrong name, one within another."""
    (fault,) = faults(f"hostname: '{text}'", A="a", B="b")
    assert fault.startswith("deferd.yaml:2: hostname: has a ${ that names no variable")


def test_a_list_can_come_from_a_variable(loaded):
    """Where the key is a list, the text is read as one."""
    text = "routes: [{domains: '*', relay: '${RELAYS}'}]"
    relays = loaded(text, RELAYS="[smtp://a.example, smtp://b.example]").routes[0].relay
    assert [relay.host for relay in relays] == ["a.example", "b.example"]
    assert loaded(text, RELAYS="smtp://a.example").routes[0].relay == relays[:1]


def test_any_key_can_be_set_by_a_variable(loaded):
    """At any depth, over what the file says, and where the file says nothing."""
    settings = loaded(
        "retry: {max_age: 1d}\nqueue:\n",
        DEFERD_RETRY__MAX_AGE="2d",
        DEFERD_RETRY__SITE_REST__FIRST="2",
        DEFERD_RETRY__DELAYS="[1m, 10m]",
        DEFERD_RETRY__WARN_AFTER="null",
        DEFERD_LIMITS__CONNECTIONS="5",
        DEFERD_LIMITS__RATE_PER_SITE="30/m",
        DEFERD_QUEUE__DIRECTORY="/tmp/q",
        DEFERD_HTTP="{listen: null}",
        DEFERD_HOSTNAME="mail.example.org",
        DEFERD_CONFIG="/somewhere",
    )
    assert settings.retry.max_age == 172_800
    assert settings.retry.site_rest.first == 2
    assert settings.retry.delays == (60, 600)
    assert settings.retry.warn_after is None
    assert settings.limits.connections == 5
    assert settings.limits.rate_per_site == 0.5
    assert settings.queue.directory == "/tmp/q"
    assert settings.http.listen is None
    assert settings.hostname == "mail.example.org"


def test_a_routes_key_is_set_by_its_number(loaded):
    """The first is 0; one beyond the last adds a route; a password is taken as it is."""
    settings = loaded(
        DEFERD_ROUTES__0__USERNAME="shop",
        DEFERD_ROUTES__0__PASSWORD="{*&: ${NOT} 1",
        DEFERD_ROUTES__0__RELAY="smtp://other.example",
        DEFERD_ROUTES__1='{domains: [a.example], relay: "smtp://[::1]"}',
        DEFERD_ROUTES__1__TLS="none",
        DEFERD_ROUTES__1__RATE="10/s",
        DEFERD_ROUTES__1__CONNECTIONS="3",
    )
    first, second = settings.routes
    assert (first.username, first.password) == ("shop", "{*&: ${NOT} 1")
    assert first.relay[0].host == "other.example"
    assert (second.relay[0].host, second.tls, second.rate, second.connections) == ("::1", "none", 10, 3)


def test_an_override_silences_what_it_replaces(loaded):
    """A variable that the file needs is not asked for where its key is set otherwise."""
    assert loaded("hostname: ${MISSING}", DEFERD_HOSTNAME="a.example").hostname == "a.example"


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("DEFERD_RETRY__MAX_AGE", "soon", "DEFERD_RETRY__MAX_AGE: retry.max_age: 'soon' is no duration"),
        ("DEFERD_HOSTNAME", "", "DEFERD_HOSTNAME: hostname: '' is empty"),
        ("DEFERD_RETRY", "2d", "DEFERD_RETRY: retry: is no mapping"),
        ("DEFERD_RETRY", "{max_age: [}", "DEFERD_RETRY: is no YAML"),
        ("DEFERD_RETRY", "{max_age: soon}", "DEFERD_RETRY: retry.max_age: 'soon' is no duration"),
        (
            "DEFERD_RETRY__MAXAGE",
            "2d",
            "DEFERD_RETRY__MAXAGE: is no key that deferd knows; did you mean retry.max_age",
        ),
        ("DEFERD_MAX_AGE", "2d", "DEFERD_MAX_AGE: is no key that deferd knows; did you mean retry.max_age?"),
        ("DEFERD_ROUTES__5__TLS", "none", "DEFERD_ROUTES__5__TLS: is no key"),
        ("DEFERD_RETRY__DELAYS", "[\ud800]", "DEFERD_RETRY__DELAYS: is not UTF-8"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(faults, name, value, fault):
    """Not by a line, since it has none."""
    (found,) = faults(**{name: value})
    assert found.startswith(fault)


def test_what_kubernetes_sets_is_no_key_of_ours(loaded):
    """A service called deferd puts its address into every container beside it."""
    loaded(DEFERD_SERVICE_HOST="10.0.0.1", DEFERD_PORT="tcp://10.0.0.1:8025", DEFERD_PORT_8025_TCP_ADDR="10.0.0.1")


def test_another_programs_variables_are_its_own(loaded):
    """What begins like ours but is near no key is not for us; what is near one is a slip of the pen."""
    loaded(DEFERD_CONTAINER_ENGINE="podman", DEFERD_ROOT_OF_ALL="/srv")
