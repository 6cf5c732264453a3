"""Whatever a file or a variable says, it is settings or a `ConfigError`."""

from __future__ import annotations

import contextlib

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from config.loader import ConfigError, load
from config.schema import paths
from config.settings import Settings

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["1m", "-1m", "50M", "30/m", "${A}", "${A:-x}", "$${A}", "smtp://[::1]", "smtp://a:1", "*", "*.a", "none"]
    ),
    st.sampled_from([10**400, -(10**400), "9" * 5000, "1e400", "\x1b[2J", "\u202e", "a\r\nb", "\0"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted(paths())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example({"hostname": {"\x1b[2J": "${"}}, {})
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), st.dictionaries(st.sampled_from(KEYS), st.text()))
def test_any_values_are_settings_or_an_error(tmp_path, values, variables):
    """For every key of the schema, nested as it is, and every variable that sets one."""
    tree = {"routes": [{"domains": "*", "relay": "smtp://a.example"}]}
    for path, value in values.items():
        *sections, last = path.replace("[0]", ".0").split(".")
        node = tree
        with contextlib.suppress(TypeError, IndexError, KeyError, AttributeError):
            for section in sections:
                node = node[int(section)] if section.isdecimal() else node.setdefault(section, {})
            node[last] = value
    path = tmp_path / "deferd.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8", "surrogatepass")
    environ = {f"DEFERD_{path.replace('[0]', '.0').replace('.', '__').upper()}": v for path, v in variables.items()}
    outcome: object
    try:
        outcome = load(str(path), environ)
    except ConfigError as error:
        outcome = error
    assert isinstance(outcome, Settings) or outcome.problems
    assert isinstance(outcome, Settings) or all(line.isprintable() for line in str(outcome).split("\n"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="abz:-[]{}\"'#&*!|> \n\t,?%@`$0", max_size=200) | st.text(max_size=100))
def test_any_text_is_settings_or_an_error(tmp_path, text):
    """YAML or not."""
    path = tmp_path / "deferd.yaml"
    path.write_text(text, "utf-8", "surrogatepass")
    outcome: object
    try:
        outcome = load(str(path), {})
    except ConfigError as error:
        outcome = error
    assert isinstance(outcome, Settings) or all(line.isprintable() for line in str(outcome).split("\n"))
