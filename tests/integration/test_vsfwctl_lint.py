"""vsfwctl lint with a running manager over TLS."""

import json
from pathlib import Path

import pytest

from tests.harness.manager import served, vsfwctl

pytestmark = pytest.mark.slow

SECTIONS = "/infra/domains/default/security-policies"


def test_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    """Each finding in a line with the reason, what makes it so, and the next step; JSON has whole paths. The
    exit status says that there is one only where it is asked for."""
    with served(tmp_path) as manager:
        empty = {"source_groups": ["/infra/domains/default/groups/empty"]}
        rules = [{"id": "no", "action": "DROP"}, {"id": "never", "action": "ALLOW", "services": ["ANY"]}]
        rules += [{"id": f"r{number}", "action": "DROP", **empty} for number in range(5)]
        manager.rest.patch("/policy/api/v1/infra/domains/default/groups/empty", json={}).raise_for_status()
        manager.rest.patch(f"/policy/api/v1{SECTIONS}/s", json={"rules": rules}).raise_for_status()
        statuses = [
            vsfwctl(manager, tmp_path, "lint", *arguments).returncode
            for arguments in (
                ("--exit-code", "--kind", "shadowed"),
                ("--exit-code", "--json"),
                ("--exit-code", "--kind", "never_hit", "--unhit-days", "0"),
                ("--unhit-days", "-1"),
            )
        ]
        table, shadowed, wrong = (
            vsfwctl(manager, tmp_path, "lint", *arguments)
            for arguments in ((), ("--json", "--kind", "shadowed"), ("--kind", "x"))
        )
    assert statuses == [7, 7, 0, 2]
    assert (table.returncode, table.stderr) == (0, "")
    (line,) = [line for line in table.stdout.splitlines() if "SHADOWED" in line]
    assert "security-policies/s/rules/never" in line
    assert "'no' above matches all that it matches" in line
    assert "delete it" in line
    (line,) = [line for line in table.stdout.splitlines() if "EMPTY_GROUP" in line]
    assert "rules/r2, and 2 more" in line
    (finding,) = json.loads(shadowed.stdout)
    assert finding["others"] == [{"path": f"{SECTIONS}/s/rules/no", "display_name": "no"}]
    assert wrong.returncode == 2
    assert "--kind" in wrong.stderr
