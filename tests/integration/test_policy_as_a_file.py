"""vsfwctl with a running manager over TLS: export, apply, confirm, and what goes wrong on the way there."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.broker import free_ports
from tests.harness.manager import Served, served
from vsfwd.ctl import policyfile

pytestmark = pytest.mark.slow

DOMAIN = "/policy/api/v1/infra/domains/default"
VSFWCTL = [sys.executable, "-m", "vsfwd.ctl"]
NO_GROUPS = """\
version: 1
services: []
firewall-schedulers: []
firewall-session-timer-profiles: []
security-policies: []
exclude-list: {}
"""
"""All that a document has to have, but for groups."""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("manager")) as manager:
        yield manager


@pytest.fixture
def settings(manager: Served, tmp_path: Path) -> dict[str, str]:
    """Good ones, in the environment, with a home of the test."""
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin", "PYTHONPATH": os.getcwd()}
    good = {"VSFWCTL_MANAGER": manager.url, "VSFWCTL_CA": manager.ca}
    return home | good | {"VSFWCTL_USER": manager.user, "VSFWCTL_PASSWORD": manager.password}


@pytest.fixture
def vsfwctl(settings: dict[str, str], tmp_path: Path) -> Run:
    """Runs it in the test's directory; `env` is what differs from good settings, empty what is not there."""

    def run(*arguments: str, env: dict[str, str] | None = None, **more: Any) -> Any:
        every = {key: value for key, value in (settings | (env or {})).items() if value}
        more = {"stdin": subprocess.DEVNULL} | more
        argv = [*VSFWCTL, *arguments]
        return subprocess.run(argv, cwd=tmp_path, env=every, capture_output=True, text=True, **more)

    return run


@pytest.fixture
def exported(manager: Served, vsfwctl: Run, tmp_path: Path) -> Path:
    """A policy at the manager, and the file of it."""
    rule = {"id": "in", "action": "ALLOW", "destination_groups": [f"{DOMAIN[14:]}/groups/web"]}
    manager.rest.patch(f"{DOMAIN}/groups/web", json={"description": "12:30"}).raise_for_status()
    manager.rest.patch(f"{DOMAIN}/security-policies/s", json={"rules": [rule]}).raise_for_status()
    done = vsfwctl("export", "-o", "policy.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return tmp_path / "policy.yaml"


def edited(file: Path, was: str, now: str) -> None:
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, now))


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_applying_an_export_is_the_identity(
    manager: Served, vsfwctl: Run, exported: Path, format: str
) -> None:
    """In both formats: no difference, nothing published, no question."""
    saved = manager.rest.get("/api/v1/vsfw/configurations").json()
    done = vsfwctl("export", "--format", format)
    file = exported.with_name(f"policy.{format}")
    file.write_text(done.stdout)
    assert policyfile.read(file.name, done.stdout) == policyfile.read("policy.yaml", exported.read_text())
    done = vsfwctl("apply", file.name, "--yes")
    assert (done.returncode, done.stdout) == (0, "no difference\n")
    assert manager.rest.get("/api/v1/vsfw/configurations").json() == saved


def test_a_dry_run_shows_and_changes_nothing(vsfwctl: Run, exported: Path) -> None:
    """With --diff the lines; what is not possible is refused, with the reason."""
    edited(exported, "groups/web\n    action: ALLOW", "groups/web\n    action: REJECT")
    done = vsfwctl("apply", "policy.yaml", "--dry-run", "--diff")
    assert done.returncode == 0
    assert "~ /infra/domains/default/security-policies/s/rules/in\n" in done.stdout
    assert "    -action: ALLOW\n    +action: REJECT\n" in done.stdout
    assert "\n1 changed\n" in done.stdout
    edited(exported, "groups/web", "groups/none")
    done = vsfwctl("apply", "policy.yaml", "--dry-run")
    assert done.returncode == 1
    assert "there is no '/infra/domains/default/groups/none'" in done.stderr


def test_a_dry_run_can_say_by_its_status_that_something_would_change(vsfwctl: Run, exported: Path) -> None:
    """With --exit-code 5, and 0 where nothing would; what is refused is 1 all the same."""
    dry = ("apply", "policy.yaml", "--dry-run", "--exit-code")
    assert vsfwctl(*dry).returncode == 0
    edited(exported, "12:30", "other")
    assert vsfwctl(*dry).returncode == 5
    edited(exported, "groups/web", "groups/none")
    assert vsfwctl(*dry).returncode == 1
    done = vsfwctl("apply", "policy.yaml", "--exit-code", "--yes")
    assert (done.returncode, "--exit-code is about a --dry-run" in done.stderr) == (2, True)


def test_in_json_it_says_what_became_of_it(vsfwctl: Run, exported: Path) -> None:
    """The differences, and one word for the outcome; nobody is asked."""

    def said(*arguments: str, status: int = 0) -> Any:
        done = vsfwctl(*arguments, "--json")
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    assert said("apply", "policy.yaml", "--yes") == {
        "outcome": "unchanged",
        "confirm_within": None,
        "results": [],
    }
    edited(exported, "12:30", "other")
    would = said("apply", "policy.yaml", "--dry-run", "--exit-code", status=5)
    (each,) = would["results"]
    assert (would["outcome"], each["path"]) == ("dry run", "/infra/domains/default/groups/web")
    assert (each["before"]["description"], each["after"]["description"]) == ("12:30", "other")
    assert vsfwctl("apply", "policy.yaml", "--json").returncode == 2
    done = said("apply", "policy.yaml", "--yes", "--confirm", "600")
    assert (done["outcome"], done["confirm_within"], done["results"]) == ("published", 600, [each])
    assert said("roll-back") == {"outcome": "undone"}
    said("apply", "policy.yaml", "--yes", "--confirm", "600")
    assert said("confirm") == {"outcome": "confirmed"}
    edited(exported, "groups/web", "groups/none")
    refused = said("apply", "policy.yaml", "--yes", status=1)
    assert (refused["outcome"], "groups/none" in refused["refused"]) == ("refused", True)


def test_a_file_takes_away_what_it_does_not_name(manager: Served, vsfwctl: Run, exported: Path) -> None:
    """And the file before brings it back."""
    before = manager.rest.get("/api/v1/vsfw/policy").json()
    empty = json.dumps(before | {"groups": [], "security-policies": []})
    done = vsfwctl("apply", "-", "--yes", input=empty, stdin=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("3 removed\npublished\n")
    assert manager.rest.get(f"{DOMAIN}/groups/web").status_code == 404
    assert "3 added" in vsfwctl("apply", "policy.yaml", "--yes").stdout
    assert manager.rest.get(f"{DOMAIN}/groups/web").json()["description"] == "12:30"


def test_a_large_file_is_compared_and_applied(vsfwctl: Run, exported: Path) -> None:
    """More than 64 KiB, which is what other calls take."""
    before = exported.read_text()
    edited(exported, "\ngroups:\n", "\ngroups:\n" + "".join(f"- id: many-{i}\n" for i in range(5000)))
    assert len(exported.read_text()) > 64 * 1024
    assert vsfwctl("apply", "policy.yaml", "--yes").stdout.endswith("5000 added\npublished\n")
    exported.write_text(before)
    assert vsfwctl("apply", "policy.yaml", "--yes").stdout.endswith("5000 removed\npublished\n")


def test_a_publish_that_is_not_confirmed_is_undone(manager: Served, vsfwctl: Run, exported: Path) -> None:
    """Here at once, by word; what is confirmed stays."""
    edited(exported, "12:30", "other")
    done = vsfwctl("apply", "policy.yaml", "--yes", "--confirm", "600")
    assert "undone in 600 s, unless you say: vsfwctl confirm" in done.stdout
    done = vsfwctl("roll-back")
    assert (done.returncode, done.stdout) == (0, "undone\n")
    assert manager.rest.get(f"{DOMAIN}/groups/web").json()["description"] == "12:30"
    vsfwctl("apply", "policy.yaml", "--yes", "--confirm", "600")
    done = vsfwctl("confirm")
    assert (done.returncode, done.stdout) == (0, "confirmed\n")
    assert manager.rest.get(f"{DOMAIN}/groups/web").json()["description"] == "other"
    done = vsfwctl("confirm")
    assert (done.returncode, done.stderr) == (1, "vsfwctl: nothing waits to be confirmed\n")
    assert "an earlier policy, see /api/v1/vsfw/configurations" in vsfwctl("roll-back").stderr


def test_an_import_says_what_it_left_out(manager: Served, vsfwctl: Run, tmp_path: Path) -> None:
    """A line each and the exit status 4, of a dry run too; 0 where nothing was."""
    tier = {"resource_type": "ChildTier1", "Tier1": {"id": "t1", "path": "/infra/tier-1s/t1"}}
    group = {"resource_type": "ChildGroup", "Group": {"id": "from-nsx", "_revision": 3}}
    domain = {"resource_type": "ChildDomain", "Domain": {"id": "default", "children": [group]}}
    file = tmp_path / "nsx.json"
    file.write_text(json.dumps({"resource_type": "Infra", "children": [domain, tier]}))
    done = vsfwctl("import", "nsx.json", "--dry-run")
    assert (done.returncode, done.stderr) == (4, "")
    assert "+ /infra/domains/default/groups/from-nsx\n1 added\n" in done.stdout
    assert "of no account here: _revision 1" in done.stdout
    assert "left out  /infra/tier-1s/t1  Tier1  has no counterpart here\n1 left out\n" in done.stdout
    assert manager.rest.get(f"{DOMAIN}/groups/from-nsx").status_code == 404
    assert vsfwctl("import", "nsx.json", "--yes").returncode == 4
    assert manager.rest.get(f"{DOMAIN}/groups/from-nsx").is_success
    file.write_text(json.dumps({"resource_type": "Infra", "children": [domain]}))
    done = vsfwctl("import", "nsx.json", "--yes")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "no difference")


def test_an_import_can_be_confirmed_and_told_in_json(manager: Served, vsfwctl: Run, tmp_path: Path) -> None:
    """What was left out stands beside the differences; it is undone unless it is confirmed."""
    group = {"resource_type": "ChildGroup", "Group": {"id": "for-a-while"}}
    domain = {"resource_type": "ChildDomain", "Domain": {"id": "default", "children": [group]}}
    tier = {"resource_type": "ChildTier1", "Tier1": {"id": "t1"}}
    tree = {"resource_type": "Infra", "children": [domain, tier]}
    (tmp_path / "nsx.json").write_text(json.dumps(tree))
    done = vsfwctl("import", "nsx.json", "--yes", "--confirm", "600", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["outcome"], said["confirm_within"]) == (4, "published", 600)
    assert [each["path"] for each in said["results"]] == [f"{DOMAIN[14:]}/groups/for-a-while"]
    assert [each["what"] for each in said["left_out"]] == ["Tier1"]
    assert manager.rest.get(f"{DOMAIN}/groups/for-a-while").is_success
    assert vsfwctl("roll-back").returncode == 0
    assert manager.rest.get(f"{DOMAIN}/groups/for-a-while").status_code == 404


def test_an_import_that_would_let_more_in_wants_to_be_told_so(
    manager: Served, vsfwctl: Run, tmp_path: Path
) -> None:
    """A rule that drops cannot be taken: it is named, the exit status is 1; with --partly the rest is."""
    drop = {"id": "no", "action": "DROP", "profiles": ["/infra/context-profiles/SSL"]}
    section = {"id": "nsx", "rules": [drop, {"id": "yes", "action": "ALLOW"}]}
    child = {"resource_type": "ChildSecurityPolicy", "SecurityPolicy": section}
    domain = {"resource_type": "ChildDomain", "Domain": {"id": "default", "children": [child]}}
    (tmp_path / "nsx.json").write_text(json.dumps({"resource_type": "Infra", "children": [domain]}))
    done = vsfwctl("import", "nsx.json", "--yes")
    assert done.returncode == 1
    assert "security-policies/nsx/rules/no: cannot be taken" in done.stderr
    assert "--partly" in done.stderr
    assert manager.rest.get(f"{DOMAIN}/security-policies/nsx").status_code == 404
    assert vsfwctl("import", "nsx.json", "--yes", "--partly").returncode == 4
    rules = manager.rest.get(f"{DOMAIN}/security-policies/nsx").json()["rules"]
    assert [rule["id"] for rule in rules] == ["yes"]
    manager.rest.delete(f"{DOMAIN}/security-policies/nsx").raise_for_status()


def test_what_changed_while_it_asked_is_not_published(
    manager: Served, vsfwctl: Run, exported: Path, settings: dict[str, str]
) -> None:
    """The answer was to other differences: refused, and nothing of the file is there."""
    edited(exported, "12:30", "other")
    mine, its = pty.openpty()
    argv = [*VSFWCTL, "apply", "policy.yaml"]
    pipes: dict[str, Any] = {"stdin": its, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, cwd=exported.parent, env=settings, text=True, **pipes) as process:
        assert process.stdout is not None
        assert "changed" in (process.stdout.readline() + process.stdout.readline())
        manager.rest.patch(f"{DOMAIN}/groups/another", json={}).raise_for_status()
        os.write(mine, b"y\n")
        _, errors = process.communicate(timeout=30)
    os.close(mine)
    os.close(its)
    assert (process.returncode, "look at the differences again" in errors) == (1, True)
    assert manager.rest.get(f"{DOMAIN}/groups/web").json()["description"] == "12:30"
    manager.rest.delete(f"{DOMAIN}/groups/another").raise_for_status()


def test_while_another_publish_waits_there_is_none(manager: Served, vsfwctl: Run, exported: Path) -> None:
    """Somebody else's has to be confirmed first; it is named."""
    user = {"role": "security_engineer", "password": "a password of length"}
    manager.rest.put("/api/v1/vsfw/users/bob", json=user).raise_for_status()
    edited(exported, "12:30", "other")
    begin = {"action": "begin", "confirm_within": 600}
    manager.rest.post("/api/v1/vsfw/publish", params=begin).raise_for_status()
    bob = {"VSFWCTL_USER": "bob", "VSFWCTL_PASSWORD": user["password"]}
    done = vsfwctl("apply", "policy.yaml", "--yes", env=bob)
    manager.rest.post("/api/v1/vsfw/publish", params={"action": "confirm"}).raise_for_status()
    assert (done.returncode, "a publish of admin waits to be confirmed" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("version: 1\ngroups: [\n", 2, "vsfwctl: policy.yaml:3:1: "),
        ("version: 1\nversion: 1\n", 2, "vsfwctl: policy.yaml:2:1: 'version' is there twice"),
        ("version: 1\ntier-0s: []\n", 1, "vsfwctl: tier-0s: unknown kind; there are services,"),
        ("version: 1\ngroups: []\n", 1, "vsfwctl: services, firewall-schedulers, firewall-session-timer"),
        ("groups: []\n", 1, "vsfwctl: version: None; this manager reads version 1"),
        (f'{NO_GROUPS}groups:\n- id: "a\\eb"\n', 1, "vsfwctl: /infra/domains/default/groups/a\ufffdb: id: "),
    ],
)
def test_a_file_that_is_no_policy_is_said_by_its_place(
    vsfwctl: Run, tmp_path: Path, text: str, status: int, said: str
) -> None:
    """By line and column where it cannot be read, by kind and field where the manager cannot take it; without
    what would move the cursor."""
    (tmp_path / "policy.yaml").write_text(text)
    done = vsfwctl("apply", "policy.yaml", "--yes")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(said)


@pytest.mark.parametrize(("answer", "description"), [(b"n\n", "12:30"), (b"y\n", "other")])
def test_at_a_terminal_it_asks(
    manager: Served, vsfwctl: Run, exported: Path, answer: bytes, description: str
) -> None:
    """And publishes if the answer is yes."""
    edited(exported, "12:30", "other")
    mine, its = pty.openpty()
    try:
        os.write(mine, answer)
        done = vsfwctl("apply", "policy.yaml", stdin=its)
    finally:
        os.close(mine)
        os.close(its)
    assert "publish this? [y/N]" in done.stdout
    assert manager.rest.get(f"{DOMAIN}/groups/web").json()["description"] == description


def test_our_own_export_is_not_imported(vsfwctl: Run, exported: Path) -> None:
    """It is for apply, and that is said."""
    done = vsfwctl("import", "policy.yaml", "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "policy.yaml: an export of this manager, not of NSX; use apply" in done.stderr


def test_an_export_that_cannot_be_written_is_wrong_usage(vsfwctl: Run) -> None:
    """As a file that cannot be read."""
    done = vsfwctl("export", "-o", "nowhere/policy.yaml")
    assert (done.returncode, "nowhere/policy.yaml: No such file" in done.stderr) == (2, True)


def test_where_nobody_can_be_asked_it_wants_yes(vsfwctl: Run, exported: Path) -> None:
    """Before it does anything."""
    done = vsfwctl("apply", "policy.yaml")
    assert done.returncode == 2
    assert "say --yes, or --dry-run" in done.stderr


def test_what_is_said_of_the_manager_may_stand_in_a_file(
    manager: Served, vsfwctl: Run, tmp_path: Path
) -> None:
    """In one that others cannot read; its password goes to the manager it names, and to no other."""
    config = tmp_path / ".config" / "vsfwctl" / "manager.toml"
    config.parent.mkdir(parents=True)
    keys = {"manager": manager.url, "ca": manager.ca, "user": manager.user, "password": manager.password}
    config.write_text("".join(f'{key} = "{value}"\n' for key, value in keys.items()))
    nothing = dict.fromkeys(("VSFWCTL_MANAGER", "VSFWCTL_CA", "VSFWCTL_USER", "VSFWCTL_PASSWORD"), "")
    config.chmod(0o640)
    done = vsfwctl("export", env=nothing)
    assert (done.returncode, "others can read the password" in done.stderr) == (2, True)
    config.chmod(0o600)
    assert vsfwctl("export", env=nothing).returncode == 0
    done = vsfwctl("export", env=nothing | {"VSFWCTL_MANAGER": "https://192.0.2.1"})
    assert (done.returncode, "no password for admin" in done.stderr) == (2, True)


def test_a_token_takes_the_place_of_user_and_password(manager: Served, vsfwctl: Run) -> None:
    """From the environment; one that is no token is refused."""
    made = manager.rest.post("/api/v1/vsfw/tokens", json={"display_name": "ci", "lifetime_s": 3600}).json()
    login = {"VSFWCTL_USER": "", "VSFWCTL_PASSWORD": ""}
    assert vsfwctl("export", env=login | {"VSFWCTL_TOKEN": made["token"]}).returncode == 0
    done = vsfwctl("export", env=login | {"VSFWCTL_TOKEN": "x"})
    assert (done.returncode, "no such token" in done.stderr) == (1, True)


def test_a_role_that_may_not_is_told_so(manager: Served, vsfwctl: Run, exported: Path) -> None:
    """An auditor exports and compares, and does not publish."""
    user = {"role": "auditor", "password": "a password of length"}
    manager.rest.put("/api/v1/vsfw/users/eve", json=user).raise_for_status()
    eve = {"VSFWCTL_USER": "eve", "VSFWCTL_PASSWORD": user["password"]}
    edited(exported, "12:30", "other")
    assert vsfwctl("apply", "policy.yaml", "--dry-run", env=eve).returncode == 0
    done = vsfwctl("apply", "policy.yaml", "--yes", env=eve)
    assert (done.returncode, "eve with the role auditor may not PUT" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("env", "status", "said"),
    [
        ({"VSFWCTL_MANAGER": ""}, 2, "which manager? Say --manager"),
        ({"VSFWCTL_MANAGER": "http://127.0.0.1"}, 2, "not https://HOST[:PORT]"),
        ({"VSFWCTL_CA": "none.crt"}, 2, "--ca: none.crt: No such file or directory"),
        ({"VSFWCTL_CA": "empty"}, 2, "--ca: empty: no certificate in it"),
        ({"VSFWCTL_CA": ""}, 3, "not verified by the certificates of this machine"),
        ({"VSFWCTL_USER": ""}, 2, "nobody to log in as"),
        ({"VSFWCTL_PASSWORD": ""}, 2, "no password for admin"),
        ({"VSFWCTL_PASSWORD": "wrong"}, 1, "see VSFWCTL_USER, VSFWCTL_PASSWORD"),
        ({"VSFWCTL_CONFIG": "none.toml"}, 2, "none.toml: No such file or directory"),
        ({"VSFWCTL_CONFIG": "bad.toml"}, 2, "bad.toml: Object contains unknown field `colour`"),
    ],
)
def test_what_is_wrong_about_the_manager_is_named(
    vsfwctl: Run, tmp_path: Path, env: dict[str, str], status: int, said: str
) -> None:
    """And what to do about it: 2 where it is the settings, 3 where no manager answers that is trusted."""
    (tmp_path / "empty").touch()
    (tmp_path / "bad.toml").write_text("colour = 1\n")
    done = vsfwctl("export", env=env)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


def test_a_manager_that_is_not_there_is_3(manager: Served, vsfwctl: Run) -> None:
    """Nobody listens; or by a name that is not its certificate's."""
    (port,) = free_ports(1)
    done = vsfwctl("export", "--manager", f"https://127.0.0.1:{port}")
    assert (done.returncode, "does the manager run" in done.stderr) == (3, True)
    done = vsfwctl("export", "--manager", manager.url.replace("127.0.0.1", "127.1"))
    assert (done.returncode, "say --manager with the name the certificate has" in done.stderr) == (3, True)
