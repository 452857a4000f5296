"""What vsfwctl prints of what a manager answers."""

import json
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from click.testing import CliRunner

from vsfwd.ctl import main
from vsfwd.ctl.policy import Way, show, show_left_out, take
from vsfwd.rest import Denied, Rest

NASTY = "a\rb\u202ec\x07"
SHOWN = "a\ufffdb\ufffdc\ufffd"


def test_what_others_wrote_does_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, values, names of fields: whoever wrote the policy, or the export, chose them."""
    show([{"path": f"/{NASTY}", "before": None, "after": {"description": NASTY}}], True)
    show_left_out({"metadata": {NASTY: 1}, "left_out": [{"path": f"/{NASTY}", "what": NASTY, "why": NASTY}]})
    said = capsys.readouterr().out
    assert all(letter.isprintable() for letter in said.replace("\n", ""))
    assert f"+ /{SHOWN}\n" in said
    assert f"of no account here: {SHOWN} 1\n" in said
    assert f"left out  /{SHOWN}  {SHOWN}  {SHOWN}\n" in said


class _Answering:
    """A manager that has something to change, and `hosts`."""

    def __init__(self, hosts: list[dict[str, object]], refused: str = "") -> None:
        self.hosts = hosts
        self.found = {"results": [{"path": "/x", "before": {"a": 1}, "after": {"a": 2}}], "digest": "d"}
        self.found |= {"refused": refused} if refused else {}

    def call(self, *_: Any, **__: Any) -> Any:
        return dict(self.found)

    def every(self, *_: Any, **__: Any) -> Any:
        return self.hosts


def applied(capsys: pytest.CaptureFixture[str], manager: _Answering, **way: Any) -> tuple[object, str]:
    """The exit status of `apply`, and what it prints."""
    said = {"dry_run": False, "exit_code": False, "diff": False, "confirm": None, "yes": True}
    with pytest.raises(SystemExit) as ended:
        take(cast(Rest, manager), Way(**(said | way), as_json=False), "PUT", "/policy", {})
    return ended.value.code, capsys.readouterr().out


def test_who_publishes_is_told_which_hosts_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """How many are away, and that there is no broker; nothing where all are there."""
    up, down = ({"connected": state, "no_broker": ""} for state in (True, False))
    unknown = {"connected": None, "no_broker": "no broker (refused)"}
    assert applied(capsys, _Answering([up, up])) == (0, "~ /x\n1 changed\npublished\n")
    wait = "hosts are not connected and get it when they are"
    assert applied(capsys, _Answering([up, down, down]))[1].endswith(f"published\n2 of 3 {wait}\n")
    said = applied(capsys, _Answering([unknown, unknown]))[1]
    assert said.endswith(f"2 of 2 {wait}; the manager has no broker (refused)\n")


def test_what_is_refused_is_not_told_as_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    """But by a dry run, which says what was compared."""
    manager = _Answering([], refused="no group x")
    assert applied(capsys, manager) == (1, "")
    assert applied(capsys, manager, dry_run=True) == (1, "~ /x\n1 changed\n")


class _Refusing:
    def call(self, *_: Any, **__: Any) -> Any:
        raise Denied("rules.0.colour: unknown field")


def test_a_script_is_told_that_the_manager_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """With the same keys as any other outcome, also where there is nothing to compare."""
    way = Way(dry_run=True, exit_code=False, diff=False, confirm=None, yes=False, as_json=True)
    with pytest.raises(Denied):
        take(cast(Rest, _Refusing()), way, "PUT", "/policy", {})
    assert json.loads(capsys.readouterr().out) == {
        "outcome": "refused",
        "confirm_within": None,
        "results": [],
        "refused": "rules.0.colour: unknown field",
    }


def test_each_wrong_object_of_a_file_has_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the manager tells them one by one; none of them makes up a line of its own."""
    told = ["/infra/services/a: display_name: missing", f"/infra/services/b: {NASTY}\nvsfwctl: x"]
    body = {"error_message": "; ".join(told), "related_errors": [{"error_message": each} for each in told]}
    monkeypatch.setattr("httpx.Client.request", lambda *_, **__: httpx.Response(400, json=body))
    file = tmp_path / "policy.json"
    file.write_text("{}")
    login = {"VSFWCTL_MANAGER": "https://manager", "VSFWCTL_USER": "admin", "VSFWCTL_PASSWORD": "x"}
    said = CliRunner(env=login).invoke(main, ["apply", "--yes", str(file)])
    first, second = said.stderr.splitlines()
    assert (said.exit_code, first) == (1, f"vsfwctl: {told[0]}")
    assert second == f"vsfwctl: /infra/services/b: {SHOWN}\ufffdvsfwctl: x"
