"""vsfwctl without a daemon: usage, and what it says when nobody answers. With one: tests/integration."""

import re
import socket
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from manager_stub.findings import Kind
from vsfwd.ctl.enrol import enroll
from vsfwd.ctl.fleet import COMMANDS as FLEET
from vsfwd.ctl.lint import KINDS, lint
from vsfwd.ctl.policy import COMMANDS
from vsfwd.ctl.shell import print_table, wide_console
from vsfwd.ctl.trace import trace
from vsfwd.ctl.vsfwctl import STATUSES, main

EXPLAIN = ["explain", "--vnic", "web", "--proto", "tcp", "--src", "10.0.0.1", "--dst", "10.0.0.2"]


def vsfwctl(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--socket", str(path), *arguments])


@pytest.mark.parametrize("command", ["status", "rules", "addrsets", "flows", "timers", "stats", "metrics"])
def test_without_a_socket_it_names_it(tmp_path: Path, command: str) -> None:
    """Exit status 3, and the next step."""
    result = vsfwctl(tmp_path / "none.sock", command)
    assert result.exit_code == 3
    assert "none.sock: no such socket; is vsfwd running" in result.stderr


def test_a_socket_nobody_listens_on_is_a_daemon_that_ended(tmp_path: Path) -> None:
    """Also 3, with another next step."""
    path = tmp_path / "vsfwd.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    result = vsfwctl(path, "status")
    assert result.exit_code == 3
    assert "start it again" in result.stderr


def test_a_file_that_is_no_socket_is_said_to_be_none(tmp_path: Path) -> None:
    """No vsfwd has ended there."""
    (tmp_path / "file").touch()
    result = vsfwctl(tmp_path / "file", "status")
    assert (result.exit_code, "file: no socket; is --socket right?" in result.stderr) == (3, True)


def test_lint_knows_every_kind_of_finding() -> None:
    """That the manager has, in its order."""
    assert tuple(Kind) == KINDS


def test_help_names_the_variables() -> None:
    """That stand for an option."""
    assert "VSFWD_SOCKET" in CliRunner().invoke(main, ["--help"]).stdout
    assert "VSFWCTL_MANAGER" in CliRunner().invoke(main, ["enroll", "--help"]).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        EXPLAIN,
        [*EXPLAIN, "--in"],
        [*EXPLAIN, "--in", "--proto", "tpc"],
        [*EXPLAIN, "--in", "--dport", "80", "--src", "10.0.0"],
        [*EXPLAIN, "--in", "--dport", "70000"],
        [*EXPLAIN, "--in", "--sport", "65536"],
        ["rules", "--vnic"],
        [],
        ["early", "attach", "eth0"],
        ["early", "attach", "eth0", "--block", "10.0.0.1", "--burst", "5"],
        ["early", "attach", "eth0", "--rate", "0"],
        ["early", "attach", "eth0", "--block", "10.0.0.1/8"],
        [*EXPLAIN, "--in", "--dport", "80", "--dst-mac", "web"],
        ["lint", "--kind"],
        ["hosts", "dance"],
        ["alarms", "suppress", "x"],
        ["components", "messages", "Agent"],
        ["components", "send", "agent", "no topic", "--all-hosts"],
        ["lint", "--kind", "SHADOWD"],
    ],
    ids=[
        "unknown",
        "no direction",
        "no port",
        "no protocol",
        "no address",
        "no port number",
        "a source port too large",
        "no value",
        "nothing",
        "nothing to drop",
        "a burst of no rate",
        "no rate",
        "no prefix",
        "no MAC address",
        "no kind",
        "no command of a list",
        "no hours",
        "no component",
        "no topic",
        "a kind of nothing",
    ],
)
def test_wrong_usage_is_2(tmp_path: Path, arguments: list[str]) -> None:
    """Before anything is asked."""
    assert vsfwctl(tmp_path / "none.sock", *arguments).exit_code == 2


@pytest.mark.parametrize("command", ["apply", "import"])
def test_a_file_that_is_not_there_is_said_first(tmp_path: Path, command: str) -> None:
    """Before who is to be asked, and which manager."""
    result = vsfwctl(tmp_path / "none.sock", command, "nowhere.yaml")
    assert result.exit_code == 2
    assert "'nowhere.yaml' does not exist" in result.stderr


def test_help_says_whom_a_command_asks_and_how_it_ends() -> None:
    """Every command stands among those that ask the host or those that ask the manager."""
    said = CliRunner().invoke(main, ["--help"]).stdout
    asked, statuses = said.rsplit("\n\n", 3)[1:3]
    host, manager = (set(re.findall(r"[\w-]+", part)) for part in asked.split("this host;"))
    of_manager = {command.name for command in (*COMMANDS, *FLEET, enroll, lint, trace)}
    assert manager & main.commands.keys() == of_manager
    assert host & main.commands.keys() == main.commands.keys() - of_manager
    for code, text in STATUSES.items():
        assert f"{code}{text}".replace(" ", "") in "".join(statuses.split())
    assert "_VSFWCTL_COMPLETE=bash_source vsfwctl" in said
    assert "..." not in said.replace("[ARGS]...", "")  # each command in one line, whole


@pytest.mark.parametrize("group", [command.name for command in FLEET])
def test_help_of_a_list_has_its_commands(group: str) -> None:
    """In a line each, whole; without a command it lists."""
    said = CliRunner().invoke(main, [group, "--help"]).stdout
    assert re.search(r"^  list +\S", said, re.MULTILINE)
    assert "..." not in said.replace("[ARGS]...", "")
    listing = CliRunner().invoke(main, [group, "--manager", "http://x"])
    assert (listing.exit_code, "http://x: not https://" in listing.stderr) == (2, True)


@pytest.mark.parametrize("command", ["apply", "export", "lint", "trace"])
def test_help_says_where_a_password_comes_from(command: str) -> None:
    """Of whatever asks the manager: never the command line."""
    said = CliRunner().invoke(main, [command, "--help"]).stdout
    assert "VSFWCTL_PASSWORD" in said
    assert "VSFWCTL_TOKEN" in said


def test_a_table_without_rows_says_what_there_is_none_of(capsys: pytest.CaptureFixture[str]) -> None:
    """Not by its first column, which may be anything."""
    print_table(wide_console(), "flows", ("VM", "dir"), [])
    assert capsys.readouterr().out == "no flows\n"


def test_the_shell_completes_commands_and_options() -> None:
    """Those of the host and those of the manager."""
    shell = ShellComplete(main, {}, "vsfwctl", "_VSFWCTL_COMPLETE")
    assert [found.value for found in shell.get_completions([], "ex")] == ["explain", "export"]
    assert [found.value for found in shell.get_completions(["apply"], "--d")] == ["--dry-run", "--diff"]
    assert [found.type for found in shell.get_completions(["apply"], "pol")] == ["file"]
