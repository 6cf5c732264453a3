"""The image and the compose example, really built and really run: read-only, non-root, one volume.

The engine is docker or podman. Where a machine needs its own way of building and running, the variables
TESTS_CONTAINER_ENGINE, _BUILD (`CONTEXT TAG [options]`) and _RUN (`[options] IMAGE [command…]`) name it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.fakes.process import eventually
from tests.fakes.relay import Relay

pytestmark = [pytest.mark.container, pytest.mark.xdist_group("container"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
UID = 10025
REQUIRED = "TESTS_CONTAINER_ENGINE" in os.environ  # whoever names an engine wants no excuses


@functools.cache
def working_engine() -> str | None:
    """The engine to use: the one that was named, else one that answers."""
    if named := os.environ.get("TESTS_CONTAINER_ENGINE"):
        return named
    for name in filter(shutil.which, ("docker", "podman")):
        if subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


EML = b"From: ann@a.example\nTo: bob@b.example\nSubject: hello\n\nFrom a container.\n"


def engine(*arguments: str) -> str:
    """What the engine prints."""
    done = subprocess.run([str(working_engine()), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image, built from this tree, and removed at the end."""
    if not (name := working_engine()):
        pytest.skip("needs a container engine that runs: docker or podman")
    tag = f"deferd-test-{os.getpid()}"
    if build := os.environ.get("TESTS_CONTAINER_BUILD"):
        command, image = [build, str(ROOT), tag, "--format", "docker"], f"localhost/{tag}"
    else:
        command, image = [name, "build", "-t", tag, str(ROOT)], tag
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and not REQUIRED:
        pytest.skip(f"needs an engine that can fetch the base image and packages: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    yield image
    engine("rmi", "--force", image)


def free_port() -> int:
    """A port that nobody uses now: the container shares the host's network."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


class Container:
    """A container in the background, removed at the end."""

    def __init__(self, image: str, options: list[str], command: list[str]) -> None:
        run = os.environ.get("TESTS_CONTAINER_RUN")
        start = [run] if run else [str(working_engine()), "run", "--network=host"]
        done = subprocess.run(
            [*start, "--detach", *options, image, *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.id = done.stdout.strip().splitlines()[-1]

    def state(self) -> dict[str, Any]:
        """What the engine knows of it."""
        state: dict[str, Any] = json.loads(engine("inspect", self.id))[0]["State"]
        return state

    def logs(self) -> str:
        """What it printed."""
        return engine("logs", self.id)

    def healthy(self) -> bool:
        """Whether its own health check says so."""
        ask = [str(working_engine()), "exec", self.id, "deferd", "health"]
        return subprocess.run(ask, capture_output=True, check=False).returncode == 0

    def remove(self) -> None:
        """Stop it at once, and forget it."""
        subprocess.run([str(working_engine()), "rm", "--force", self.id], capture_output=True, check=False)


@pytest.fixture
def containers() -> Iterator[list[Container]]:
    """Those started in a test; its end removes them."""
    started: list[Container] = []
    yield started
    for container in started:
        container.remove()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory that the image's user owns."""
    path = tmp_path / "volume"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, UID, UID)
    else:
        path.chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents):  # root's pytest directory is closed to everyone else
        if parent.stat().st_uid == os.geteuid() and parent != Path(parent.anchor):
            parent.chmod(parent.stat().st_mode | 0o011)
    return path


def dropped(volume: Path, name: str, content: bytes) -> None:
    """Drop a job into the volume, as an application on the host would."""
    hidden = volume / "new" / f".{name}.tmp"
    hidden.write_bytes(content)
    if os.geteuid() == 0:
        os.chown(hidden, UID, UID)
    hidden.rename(volume / "new" / name)


def test_a_job_dropped_into_the_volume_arrives_and_sigterm_ends_it(
    image: str, containers: list[Container], volume: Path, tmp_path: Path
) -> None:
    """Read-only root, a user without rights, one volume: the job arrives, and the container stops in time."""
    with Relay() as relay:
        config = tmp_path / "deferd.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "hostname": "client.test",
                    "routes": [{"domains": ["*"], "relay": f"smtp://127.0.0.1:{relay.port}", "tls": "none"}],
                    "http": {"listen": f"127.0.0.1:{free_port()}"},
                }
            )
        )
        options = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        options += [f"--volume={volume}:/var/spool/deferd", f"--volume={config}:/etc/deferd/deferd.yaml:ro"]
        container = Container(image, options, [])
        containers.append(container)
        eventually(container.healthy)
        dropped(volume, "hello.eml", EML)
        assert relay.wait_for(1)[0].recipients == ["bob@b.example"]
        result = volume / "results" / "hello.json"
        eventually(lambda: json.loads(result.read_text())["state"] if result.exists() else None, "delivered".__eq__)
        engine("stop", "--time", "28", container.id)
        assert container.state()["ExitCode"] == 0, container.logs()


def test_the_image_is_small_and_has_nothing_to_build_with(image: str) -> None:
    """It adds less than 100 MB to its base, runs as a user without rights, and holds neither compiler nor pip."""
    facts = json.loads(engine("image", "inspect", image))[0]
    base = "docker.io/library/python:3.13-slim-bookworm"
    added = facts["Size"] - json.loads(engine("image", "inspect", base))[0]["Size"]
    assert added < 100_000_000
    assert facts["Config"]["User"] == "deferd"
    assert facts["Config"]["StopSignal"] in ("SIGTERM", "15")
    assert "health" in str(facts.get("Healthcheck") or facts["Config"].get("Healthcheck"))
    packages = "/opt/deferd/bin /opt/deferd/lib/python3.13/site-packages"
    look = f"command -v gcc cc make; ls {packages} | grep -E '^(pip|setuptools|wheel)'; id -u"
    container = Container(image, ["--read-only", "--entrypoint=sh"], ["-c", look])
    engine("wait", container.id)
    assert container.logs().split() == [str(UID)]
    container.remove()


def options_of(
    service: dict[str, Any], compose: dict[str, Any], places: dict[str, str], environ: dict[str, str]
) -> list[str]:
    """The engine's options for a service of the compose file, with its named volumes and secrets put in `places`."""
    options = []
    for mount in service.get("volumes", []):
        source, _, target = mount.partition(":")
        options.append(f"--volume={places.get(source) or (ROOT / 'deploy' / source).resolve()}:{target}")
    options += [f"--volume={places[secret]}:/run/secrets/{secret}:ro" for secret in service.get("secrets", [])]
    options += [f"--env={name}={environ[name]}" for name in service.get("environment", {}) if name in environ]
    options += ["--read-only"] if service["read_only"] else []
    options += [f"--user={service['user']}"]
    options += [f"--cap-drop={capability}" for capability in service.get("cap_drop", [])]
    return options + [f"--security-opt={option.replace(':true', '')}" for option in service.get("security_opt", [])]


def test_the_compose_example_works(image: str, containers: list[Container], volume: Path, tmp_path: Path) -> None:
    """The application of deploy/compose.yaml drops a job beside deferd, which logs in over TLS and delivers it."""
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    secret = tmp_path / "relay-password"
    secret.write_text("a password")
    secret.chmod(0o444)
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with Relay(tls=tls, password=("app", "a password")) as relay:
        environ = {
            "RELAY_URL": f"smtp://127.0.0.1:{relay.port}",
            "RELAY_TLS": "encrypt",
            "RELAY_USERNAME": "app",
            "MAIL_TO": "you@b.example",
        }
        places = {"queue": str(volume), "relay-password": str(secret)}
        services = compose["services"]
        port = f"--env=DEFERD_HTTP__LISTEN=127.0.0.1:{free_port()}"  # the machine's network is shared here
        deferd = Container(image, [*options_of(services["deferd"], compose, places, environ), port], [])
        containers.append(deferd)
        eventually(deferd.healthy)
        application = services["application"]
        example = Container(
            application["image"], options_of(application, compose, places, environ), application["command"]
        )
        containers.append(example)
        assert engine("wait", example.id).strip() == "0", example.logs() + deferd.logs()
        assert json.loads(example.logs())["state"] == "delivered"
        assert relay.wait_for(1)[0].recipients == ["you@b.example"]
        assert relay.arrivals[0].secure
