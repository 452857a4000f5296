"""Requests made up from the OpenAPI document, good ones and bad ones, against a running manager over TLS."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.manager import served

pytestmark = pytest.mark.slow

SECONDS = 20
ELSEWHERE = [
    "/api/session/create",  # wrong passwords cost time, and lock the name
    "/api/v1/vsfw/own-password",
    "/api/session/destroy",
    "/api/v1/vsfw/enrol",  # wrong tokens cost time
    "/api/v1/vsfw/dead-letters",  # 503, and right so: there is no broker
    "/api/v1/vsfw/migrations",  # the same
]


def test_no_request_breaks_the_manager_and_no_nonsense_is_accepted(tmp_path: Path) -> None:
    """Every call, for so many seconds in all: none answers with 5xx, none takes what its schema forbids."""
    with served(tmp_path) as manager:
        argv = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{manager.url}/openapi.json"]
        argv += ["--auth", f"{manager.user}:{manager.password}", "--tls-verify", manager.ca]
        argv += ["--checks", "not_a_server_error,negative_data_rejection", "--phases", "fuzzing"]
        argv += [
            "--max-time",
            str(SECONDS),
            "--max-examples",
            "10",
            "--seed",
            "1",
            "--no-shrink",
            "--no-color",
        ]
        argv += ["--generation-database", "none", "--warnings", "off"]
        for path in ELSEWHERE:
            argv += ["--exclude-path", path]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "Fuzzing" in done.stdout
