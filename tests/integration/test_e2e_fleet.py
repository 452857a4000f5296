"""vsfwctl hosts, tokens, alarms and components: the manager's side of a site, at the shell."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.harness.lab import World, allow
from vagrant.lab.waiting import wait_until
from vsfwd.ctl import main
from vsfwd.enrolment import Enrolment, enrol

pytestmark = pytest.mark.slow

AGENT = "control-plane-agent"


def vsfwctl(world: World, *arguments: str, socket: Path = Path("none.sock")) -> Result:
    access = world.lab.access
    env = {"VSFWCTL_MANAGER": access.url, "VSFWCTL_CA": str(access.ca)}
    env |= {"VSFWCTL_USER": access.user, "VSFWCTL_PASSWORD": access.password}
    return CliRunner().invoke(main, ["--socket", str(socket), *arguments], env=env)


def ask(world: World, *arguments: str) -> Any:
    done = vsfwctl(world, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def cells(line: str) -> list[str]:
    return re.split(r"  +", line.strip())


def row(world: World, host: str) -> list[str]:
    lines = vsfwctl(world, "hosts").stdout.splitlines()
    return next(cells(line) for line in lines if line.startswith(host))


def test_hosts_are_up_and_have_what_they_are_to_have(world: World) -> None:
    """A line each, with the id that REST wants, the generation, and the release."""
    world.enforce(allow("a", "b", "tcp/80"))
    (known,) = [host for host in ask(world, "hosts") if host["display_name"] == "host1"]
    generation = str(known["wanted"]["generation"])
    wait_until(lambda: row(world, "host1")[2] == "up", "the host is known to be up")
    assert row(world, "host1")[1:5] == [known["id"], "up", generation, generation]
    assert ask(world, "hosts", "list") == ask(world, "hosts")


def test_a_host_without_vsfwd_is_down_and_behind(world: World) -> None:
    """And an alarm, until it is back; somebody may say that they know."""
    world.lab.kill_vsfwd("host2")
    wait_until(lambda: row(world, "host2")[2] == "down", "the host is known to be down")
    world.order(allow("a", "c", "tcp/80"))
    wait_until(lambda: row(world, "host2")[5] == "1", "it is one generation behind")
    (alarm,) = [each for each in ask(world, "alarms") if each["node_display_name"] == "host2"]
    assert alarm["event_type"] == "management_channel_to_transport_node_down"
    assert "no connection to the broker" in vsfwctl(world, "alarms").stdout
    done = vsfwctl(world, "alarms", "acknowledge", alarm["id"])
    assert (done.exit_code, done.stdout) == (0, f"{alarm['id']} is ACKNOWLEDGED\n")
    assert alarm["id"] not in [each["id"] for each in ask(world, "alarms", "--status", "open")]
    assert vsfwctl(world, "alarms", "suppress", alarm["id"], "--hours", "2").exit_code == 0
    assert [each["id"] for each in ask(world, "alarms", "--status", "suppressed")] == [alarm["id"]]
    assert vsfwctl(world, "alarms", "reopen", alarm["id"]).stdout == f"{alarm['id']} is OPEN\n"
    mistyped = vsfwctl(world, "alarms", "reopen", alarm["id"][:-1])
    assert (mistyped.exit_code, f"did you mean {alarm['id']}?" in mistyped.stderr) == (1, True)
    world.lab.start_vsfwd("host2")
    world.lab.wait_applied()
    wait_until(lambda: row(world, "host2")[2] == "up", "the host is up again")
    wait_until(lambda: ask(world, "alarms") == [], "no alarm")
    assert vsfwctl(world, "alarms").stdout == "no alarms\n"


def test_one_host_shows_its_vnics(world: World) -> None:
    """Each with the generation that it is to have, and the one it has."""
    world.enforce(allow("a", "b", "tcp/80"))
    shown = vsfwctl(world, "hosts", "show", "host1").stdout
    position = re.search(r"wanted  (epoch \d+, generation (\d+), digest [0-9a-f]{12})", shown)
    assert position is not None
    assert f"applied  {position[1]}" in shown
    vnics = {
        cells(line)[1]: cells(line)[3:] for line in shown.splitlines() if re.match(r"[0-9a-f]{8}-", line)
    }
    assert vnics == {name: [position[2], position[2]] for name in ("a", "b")}
    by_id = ask(world, "hosts", "show", world.lab.host("host1").id or "")
    assert by_id["display_name"] == "host1"


def test_a_host_is_sent_everything_anew(world: World) -> None:
    """A generation more, and the host has it."""
    before = ask(world, "hosts", "show", "host1")["wanted"]["generation"]
    done = vsfwctl(world, "hosts", "sync", "host1")
    assert (done.exit_code, done.stdout) == (0, f"host1 is sent generation {before + 1}, all of it\n")
    world.lab.wait_applied()


@pytest.mark.parametrize("arguments", [("show",), ("sync",), ("revoke", "--yes")])
def test_a_host_that_nobody_has_is_not_asked_for(world: World, arguments: tuple[str, ...]) -> None:
    """The nearest name is said, or where names are to be had."""
    mistyped = vsfwctl(world, "hosts", *arguments, "hots2")
    assert (mistyped.exit_code, mistyped.stdout) == (1, "")
    assert "hots2: no host has that name or id; did you mean host2?" in mistyped.stderr
    assert "vsfwctl hosts shows all" in vsfwctl(world, "hosts", *arguments, "x").stderr


def test_a_host_that_came_by_a_token_is_revoked(world: World, tmp_path: Path) -> None:
    """Once somebody says yes. Then it is no host, and the token that it used is nobody's."""
    made = ask(world, "tokens", "create", "--name", "node-7")
    id = enrol(Enrolment(world.lab.access.url, made["token"], made["ca_hash"], tmp_path))
    assert row(world, "node-7")[1] == id
    assert f"by {id}" in vsfwctl(world, "tokens").stdout
    assert vsfwctl(world, "hosts", "revoke", "node-7").exit_code == 2
    assert row(world, "node-7")[1] == id
    done = vsfwctl(world, "hosts", "revoke", "node-7", "--yes")
    assert (done.exit_code, done.stdout) == (0, f"{id} is no host any more\n")
    assert id not in vsfwctl(world, "hosts").stdout


def test_a_token_is_made_shown_and_revoked(world: World) -> None:
    """With what is to be said on the host; the token itself is told this once."""
    made = vsfwctl(world, "tokens", "create", "--name", "node-7", "--lifetime", "600").stdout
    token = re.search(r"token +(([0-9a-f]{12})\.\S{43})\n", made)
    assert token is not None
    assert re.search(rf"vsfwctl enroll --manager {world.lab.access.url} --ca-hash sha256:\w{{64}} --to", made)
    listed = vsfwctl(world, "tokens").stdout
    (line,) = [cells(line) for line in listed.splitlines() if line.startswith(token[2])]
    assert line[1] == "node-7"
    assert token[1] not in listed
    assert vsfwctl(world, "tokens", "revoke", token[2]).exit_code == 0
    assert token[2] not in vsfwctl(world, "tokens").stdout
    again = vsfwctl(world, "tokens", "revoke", token[2])
    assert (again.exit_code, "vsfwctl tokens shows them" in again.stderr) == (1, True)


def test_a_host_is_given_a_token_by_its_name(world: World) -> None:
    """To be enrolled anew."""
    made = ask(world, "tokens", "create", "--host", "host1")
    assert made["host"] == world.lab.host("host1").id
    assert f"host {made['host']}, anew" in vsfwctl(world, "tokens").stdout
    vsfwctl(world, "tokens", "revoke", made["id"])
    renamed = vsfwctl(world, "tokens", "create", "--host", "host1", "--name", "other")
    assert (renamed.exit_code, "keeps its name" in renamed.stderr) == (2, True)


def test_what_a_component_says_is_read_by_host_and_topic(world: World) -> None:
    """The newest first; `list` has who has said something."""
    for number in (1, 2):
        on_host = ("bus", "publish", "--as", AGENT, "status", json.dumps({"n": number}))
        assert vsfwctl(world, *on_host, socket=world.lab.host("host1").socket).exit_code == 0
    said = ("components", "messages", AGENT, "--topic", "status")
    wait_until(lambda: len(ask(world, *said)) == 2, "the manager has both")
    assert [each["body"]["n"] for each in ask(world, *said, "--host", "host1")] == [2, 1]
    assert ask(world, *said, "--host", "host2") == []
    assert len(ask(world, *said, "--last", "1")) == 1
    assert AGENT in vsfwctl(world, "components").stdout


def test_components_of_all_hosts_are_asked(world: World) -> None:
    """The agents of the lab: each says which controllers it has."""

    def asked() -> Result:
        return vsfwctl(world, "components", "call", AGENT, "status", "--all-hosts")

    wait_until(lambda: asked().exit_code == 0, "both agents answer", 60)
    lines = [cells(line) for line in asked().stdout.splitlines()[1:]]
    assert [line[:2] for line in lines] == [["host1", "yes"], ["host2", "yes"]]
    assert all('"controllers": ' in line[2] for line in lines)


def test_whom_a_component_s_message_is_for_is_said(world: World) -> None:
    """Nobody is not everybody."""
    nobody = vsfwctl(world, "components", "send", "hello", "hello")
    assert (nobody.exit_code, "--all-hosts" in nobody.stderr) == (2, True)
    no_object = vsfwctl(world, "components", "send", "hello", "hello", "[]", "--all-hosts")
    assert (no_object.exit_code, "not a JSON object" in no_object.stderr) == (2, True)


def test_a_host_that_did_not_answer_is_status_1(world: World) -> None:
    """Each host in a line, with the reason."""
    called = vsfwctl(world, "components", "call", "hello", "hello", "--all-hosts", "--timeout", "2")
    lines = [cells(line) for line in called.stdout.splitlines()[1:]]
    assert called.exit_code == 1
    assert [line[:2] for line in lines] == [["host1", "no"], ["host2", "no"]]
    assert all(line[2] for line in lines)
