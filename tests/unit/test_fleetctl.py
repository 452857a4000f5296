"""What vsfwctl says of hosts, as the manager answers. With a site: tests/integration/test_e2e_fleet.py."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vsfwd.ctl import main

NO_BROKER = "no broker (amqps://10.0.0.1:5671: refused)"
HOST = {
    "id": "7f1c9a52-0000-4000-8000-000000000001",
    "display_name": "host1",
    "connected": None,
    "wanted": {"epoch": 1, "generation": 9},
    "applied": {"epoch": 1, "generation": 9},
    "in_sync": True,
    "vsfwd": "0.1.0",
    "vnics": [],
    "problem": "",
    "refusals": [],
    "no_broker": NO_BROKER,
}


class Answering:
    """In place of a manager: `answers` by method and path."""

    url = "https://manager"

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def call(self, method: str, path: str, *_: Any, **__: Any) -> Any:
        answer = self.answers[f"{method} {path.removeprefix('/api/v1/')}"]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def every(self, path: str, **_: Any) -> Any:
        return self.call("GET", path)

    def close(self) -> None: ...


@pytest.fixture
def vsfwctl(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs it with a manager of these answers."""
    for name, value in (("MANAGER", "https://manager"), ("USER", "admin"), ("PASSWORD", "x")):
        monkeypatch.setenv(f"VSFWCTL_{name}", value)

    def run(answers: dict[str, Any], *arguments: str) -> Result:
        monkeypatch.setattr("vsfwd.ctl.manager.Rest", lambda login: Answering(answers))
        return CliRunner().invoke(main, arguments)

    return run


def test_hosts_of_which_nothing_is_known_have_a_reason(vsfwctl: Callable[..., Result]) -> None:
    """One line for all of them, and none where there is a broker."""
    said = vsfwctl({"GET vsfw/hosts": [HOST, HOST]}, "hosts").stdout
    assert said.splitlines()[-1] == f"unknown: the manager has {NO_BROKER}"
    assert said.count(NO_BROKER) == 1
    assert "manager has" not in vsfwctl({"GET vsfw/hosts": [HOST | {"no_broker": ""}]}, "hosts").stdout


@pytest.mark.parametrize(
    ("no_broker", "said"),
    [
        ("", "host1 is sent generation 9, all of it\n"),
        (NO_BROKER, f"host1 will be sent generation 9, all of it when the broker is back: {NO_BROKER}\n"),
    ],
)
def test_what_a_host_is_sent_waits_for_the_broker(
    vsfwctl: Callable[..., Result], no_broker: str, said: str
) -> None:
    """And so it is said."""
    host = HOST | {"no_broker": no_broker}
    answers = {"GET vsfw/hosts": [host], f"POST vsfw/hosts/{HOST['id']}": host}
    assert vsfwctl(answers, "hosts", "sync", "host1").stdout == said


def test_a_manager_of_before_says_less(vsfwctl: Callable[..., Result]) -> None:
    """Of an earlier release, which does not say whether it has a broker: its hosts are shown."""
    host = {key: value for key, value in HOST.items() if key != "no_broker"}
    answers = {"GET vsfw/hosts": [host], f"POST vsfw/hosts/{HOST['id']}": host}
    assert "host1" in vsfwctl(answers, "hosts").stdout
    assert vsfwctl(answers, "hosts", "sync", "host1").stdout == "host1 is sent generation 9, all of it\n"


def test_an_alarm_that_is_none_is_not_acknowledged(vsfwctl: Callable[..., Result]) -> None:
    """Where they are to be had is said."""
    said = vsfwctl({"GET alarms": []}, "alarms", "acknowledge", "nope")
    assert (said.exit_code, said.stderr.endswith("no such alarm; vsfwctl alarms shows them\n")) == (1, True)


@pytest.mark.parametrize(
    ("whom", "enroll"),
    [
        (("--name", "node-7"), "vsfwctl enroll --manager "),
        (("--host", "host1"), "vsfwctl enroll --again --manager "),
    ],
)
def test_what_a_token_says_can_be_typed(
    vsfwctl: Callable[..., Result], whom: tuple[str, str], enroll: str
) -> None:
    """A host that is enrolled anew refuses it without --again."""
    made = {"token": "t", "ca_hash": "sha256:0", "display_name": "", "used": False, "expires": 0}
    made["host"] = HOST["id"] if whom[0] == "--host" else None
    answers = {"GET vsfw/hosts": [HOST], "POST vsfw/enrolment-tokens": made}
    assert enroll in vsfwctl(answers, "tokens", "create", *whom).stdout


def test_who_cannot_be_asked_says_yes(vsfwctl: Callable[..., Result]) -> None:
    """Without a terminal no host is revoked unless that was said; as of `apply`."""
    said = vsfwctl({}, "hosts", "revoke", "host1")
    assert (said.exit_code, "there is nobody to ask: say --yes" in said.stderr) == (2, True)
