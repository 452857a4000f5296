"""The two commands as an operator gives them: `init`, then `serve`, over TLS."""

import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.broker import free_ports
from tests.harness.manager import COMMAND, alone, command
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow

HOSTS = "/api/v1/vsfw/hosts"


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """What `init` prints."""
    (port,) = free_ports(1)
    argv = command(alone(tmp_path / "state", port), "init")
    return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def manager(tmp_path: Path, *arguments: str) -> list[str]:
    """With the configuration that `made` wrote."""
    return [*COMMAND, "--config", str(tmp_path / "state.toml"), *arguments]


@pytest.fixture
def served(made: Any, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(manager(tmp_path, "serve"))
    try:
        wait_until(lambda: answers(made), "the manager answers", 60.0)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(made: Any) -> bool:
    try:
        return get(made, made["ca"]).is_success
    except httpx.TransportError:
        return False


def get(made: Any, ca: str) -> httpx.Response:
    tls = ssl.create_default_context(cafile=ca)
    return httpx.get(made["url"] + HOSTS, auth=(made["user"], made["password"]), verify=tls, trust_env=False)


def test_the_manager_serves_over_tls_without_a_broker(made: Any, served: subprocess.Popen[bytes]) -> None:
    """Verified by the CA it made and by its address; the broker being away stops nothing but publishing."""
    assert get(made, made["ca"]).json()["results"] == []


def test_a_change_nobody_confirmed_is_undone_though_the_manager_was_killed(
    made: Any, served: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Its time runs out while there is no manager; the next one undoes it by itself."""
    group = "/policy/api/v1/infra/domains/default/groups/g"
    with client(made) as rest:
        begin = {"action": "begin", "confirm_within": 5}
        rest.post("/api/v1/vsfw/publish", params=begin).raise_for_status()
        rest.put(group, json={}).raise_for_status()
    served.kill()
    served.wait()
    again = subprocess.Popen(manager(tmp_path, "serve"))
    try:
        wait_until(lambda: answers(made), "the manager answers", 60.0)
        with client(made) as rest:
            wait_until(lambda: rest.get(group).status_code == 404, "the change is undone")
            assert rest.get("/api/v1/vsfw/publish").json() == {"waiting": False}
    finally:
        again.kill()
        again.wait()


def client(made: Any) -> httpx.Client:
    tls = ssl.create_default_context(cafile=made["ca"])
    auth = (made["user"], made["password"])
    return httpx.Client(base_url=made["url"], auth=auth, verify=tls, trust_env=False)


def reset_password(tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    argv = manager(tmp_path, "reset-password", *more)
    return subprocess.run(argv, capture_output=True, text=True)


def test_a_lost_password_is_replaced_on_the_managers_machine(
    made: Any, served: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Not while it serves. Then the new one is good, and neither the old one nor a token made with it; the
    audit log has it without the password."""
    with client(made) as rest:
        token = rest.post("/api/v1/vsfw/tokens", json={"display_name": "old"}).raise_for_status().json()
    assert "the manager serves at" in reset_password(tmp_path).stderr
    assert get(made, made["ca"]).is_success
    served.kill()
    served.wait()
    assert "no user 'nobody', there are admin" in reset_password(tmp_path, "--user", "nobody").stderr
    done = reset_password(tmp_path)
    assert done.returncode == 0, done.stderr
    fresh = {**made, "password": done.stdout.strip()}
    again = subprocess.Popen(manager(tmp_path, "serve"))
    try:
        wait_until(lambda: answers(fresh), "the manager answers", 60.0)
        assert get(made, made["ca"]).status_code == 403
        with client(fresh) as rest:
            log = rest.get("/api/v1/vsfw/audit-log").text
            assert '"changed"' in log
            assert fresh["password"] not in log
            headers = {"Authorization": f"Bearer {token['token']}"}
            assert rest.get(HOSTS, headers=headers, auth=None).status_code == 403
    finally:
        again.kill()
        again.wait()


def test_a_signal_ends_it_in_order(made: Any, served: subprocess.Popen[bytes]) -> None:
    """SIGTERM: it ends by itself, within seconds, with status 0."""
    served.terminate()
    assert served.wait(timeout=20) == 0


def test_a_second_init_is_refused(made: Any, tmp_path: Path) -> None:
    """There is a manager already: a sentence, and nothing is overwritten."""
    done = subprocess.run(manager(tmp_path, "init"), capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is a manager here already" in done.stderr


def test_what_was_changed_in_the_configuration_is_named(tmp_path: Path, made: Any) -> None:
    """SIGHUP ends nothing: it says what needs a restart, or which mistake the next start would find."""
    log = tmp_path / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(manager(tmp_path, "serve"), stdout=written, stderr=written)
    try:
        wait_until(lambda: answers(made), "the manager answers", 60.0)
        config = tmp_path / "state.toml"
        config.write_text(config.read_text().replace('127.0.0.1:1"]', '127.0.0.1:2"]'))
        process.send_signal(signal.SIGHUP)
        said = "needs_a_restart=['brokers', 'broker_apis']"
        wait_until(lambda: said in log.read_text(), "it is said")
        config.write_text("brokers = 5")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "listen: is missing" in log.read_text(), "it is said")
        assert get(made, made["ca"]).is_success
    finally:
        process.kill()
        process.wait()
