"""What vsfwd/ctl/README.md shows of the manager, as it stands there, with a manager that runs."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.documents import ROOT, by_shell, session
from tests.harness.manager import Served, served

pytestmark = pytest.mark.slow

DOMAIN = "/policy/api/v1/infra/domains/default"
GROUPS = "/infra/domains/default/groups"
PAGE = "vsfwd/ctl/README.md"
STATUS = {"vsfwctl trace": 6}
"""The packet is stopped."""
EXACT = ("--diff", "--confirm", "vsfwctl confirm", "--exit-code")
"""What is shown of these is all that they say."""


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two VMs, of which one rejects the other; a section with one rule."""
    with served(tmp_path_factory.mktemp("manager")) as manager:

        def put(path: str, body: Any) -> None:
            manager.rest.put(path, json=body).raise_for_status()

        for number, name in enumerate(("client", "db"), 1):
            card = {"id": f"22222222-0000-4000-8000-00000000000{number}", "mac": f"02:00:00:00:00:0{number}"}
            vm = {"display_name": name, "vnics": [{**card, "addresses": [f"10.0.0.{number}"]}]}
            put(f"/api/v1/vsfw/vms/11111111-0000-4000-8000-00000000000{number}", vm)
        condition = {"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Name"}
        expression = [{**condition, "operator": "EQUALS", "value": "db"}]
        put(f"{DOMAIN}/groups/db", {"expression": expression})
        put(f"{DOMAIN}/groups/web", {})
        nobody = {"id": "nobody", "action": "REJECT", "destination_groups": [f"{GROUPS}/db"]}
        put(f"{DOMAIN}/security-policies/tiers", {"category": "Application", "rules": [nobody]})
        rule = {"id": "in", "action": "ALLOW", "destination_groups": [f"{GROUPS}/web"]}
        rule["services"] = ["/infra/services/HTTP"]
        put(f"{DOMAIN}/security-policies/web", {"category": "Application", "rules": [rule]})
        yield manager


def test_the_shown_commands_say_what_is_shown(manager: Served, tmp_path: Path) -> None:
    """One after the other; the file is edited before it is compared."""
    settings = {"MANAGER": manager.url, "CA": manager.ca, "USER": manager.user, "PASSWORD": manager.password}
    env = os.environ | {f"VSFWCTL_{name}": text for name, text in settings.items()}
    env |= {"PYTHONPATH": str(ROOT), "CURL_CA_BUNDLE": manager.ca}
    file = tmp_path / "policy.yaml"
    services = ["HTTP", "HTTPS", "HTTP"]
    shown = [*session(PAGE, "Policy as a file"), *session(PAGE, "Hosts, from the manager's side")]
    assert len(shown) > 8
    for command, said in shown:
        if "--dry-run" in command and "policy.yaml" in command:
            was, now = (f"/infra/services/{name}\n" for name in services[:2])
            assert was in file.read_text()
            file.write_text(file.read_text().replace(was, now))
            services.pop(0)
        here = command.replace("--confirm 300", "--confirm 300 --yes").replace("https://NSX", manager.url)
        here = here.replace("-u admin", f"-sS -u {manager.user}:{manager.password}")
        done = by_shell(
            f"set +e\n{here}", {"vsfwctl": [sys.executable, "-m", "vsfwd.ctl"]}, cwd=tmp_path, env=env
        )
        status = STATUS.get(" ".join(command.split()[:2]), 0)
        assert (done.returncode, done.stderr) == (status, ""), command
        if any(word in command for word in EXACT):
            lines = [line for line in done.stdout.splitlines() if line]
            assert [line.split() for line in lines[-len(said) :]] == [line.split() for line in said], command
