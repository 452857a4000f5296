"""vsfwctl lint with a running manager over TLS."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.manager import served

pytestmark = pytest.mark.slow

SECTIONS = "/infra/domains/default/security-policies"


def test_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    """Each finding in a line with the reason, what makes it so, and the next step; JSON has whole paths."""
    with served(tmp_path) as manager:
        empty = {"source_groups": ["/infra/domains/default/groups/empty"]}
        rules = [{"id": "no", "action": "DROP"}, {"id": "never", "action": "ALLOW", "services": ["ANY"]}]
        rules += [{"id": f"r{number}", "action": "DROP", **empty} for number in range(5)]
        manager.rest.patch("/policy/api/v1/infra/domains/default/groups/empty", json={}).raise_for_status()
        manager.rest.patch(f"/policy/api/v1{SECTIONS}/s", json={"rules": rules}).raise_for_status()
        env = {"HOME": str(tmp_path), "PATH": "/usr/bin", "PYTHONPATH": os.getcwd()}
        env |= {"VSFWCTL_MANAGER": manager.url, "VSFWCTL_CA": manager.ca}
        env |= {"VSFWCTL_USER": manager.user, "VSFWCTL_PASSWORD": manager.password}

        def vsfwctl(*arguments: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-m", "vsfwd.ctl", "lint", *arguments]
            return subprocess.run(argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)

        table, shadowed, wrong = vsfwctl(), vsfwctl("--json", "--kind", "shadowed"), vsfwctl("--kind", "x")
    assert (table.returncode, table.stderr) == (0, "")
    (line,) = [line for line in table.stdout.splitlines() if "SHADOWED" in line]
    assert "security-policies/s/rules/never" in line
    assert "'no' above matches all that it matches" in line
    assert "delete it" in line
    (line,) = [line for line in table.stdout.splitlines() if "EMPTY_GROUP" in line]
    assert "rules/r2, and 2 more" in line
    (finding,) = json.loads(shadowed.stdout)
    assert finding["others"] == [{"path": f"{SECTIONS}/s/rules/no", "display_name": "no"}]
    assert wrong.returncode == 1
    assert "kind" in wrong.stderr
