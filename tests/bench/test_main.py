"""The command `python -m bench`."""

from __future__ import annotations

import pytest

from bench import __main__ as bench


def test_without_its_peers_it_says_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "NEEDED", {"store": "asyncio", "crowd": "no_such_peer"})
    assert bench.missing(["store"]) == []
    assert bench.main(["crowd"]) == 1
    shown = capsys.readouterr()
    assert shown.err == "bench: no_such_peer is not installed: `make bench` installs what it needs\n"
    assert not shown.out


def test_an_unknown_benchmark_is_an_error_that_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["crowds"])
    assert ended.value.code == 2
    assert "there is no benchmark crowds; there are deferreds, store, throughput" in capsys.readouterr().err
