"""The lines with `./run` in the documents of tests and benchmarks: each is run, up to what it hands to pytest
or to the bench, which take it."""

import json
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import main as bench
from tests.harness.documents import ROOT, by_shell, checkout, commands, headings

pytestmark = pytest.mark.slow

LINES = [
    line.partition("  #")[0].strip()
    for page in ("README.md", "tests/README.md", "tests/bench/README.md")
    for heading in headings(page)
    for script in commands(page, heading)
    for line in script.splitlines()
    if line.startswith(("./run test", "./run bench"))
]
TELLS = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose Python says what it is asked to run."""
    directory = checkout(tmp_path_factory.mktemp("checkout"))
    programs = directory / ".venv" / "bin"
    programs.unlink()
    programs.mkdir()
    (programs / "python").write_text(TELLS)
    (programs / "python").chmod(0o755)
    return directory


@pytest.mark.parametrize("line", LINES)
def test_a_shown_line_is_one_that_can_be_run(here: Path, pytestconfig: pytest.Config, line: str) -> None:
    """There are such options, such a part, such a file."""
    done = by_shell(line, {}, cwd=here)
    assert done.returncode == 0, done.stderr
    _, module, *arguments = json.loads(done.stdout)
    if module == "tests.bench":
        assert bench.make_context("bench", arguments)
        return
    assert module == "pytest"
    known, unknown = pytestconfig._parser.parse_known_and_unknown_args(arguments)
    assert unknown == []
    files = [name.partition("::")[0] for name in known.file_or_dir]
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", ["setup", "package", "reference", "check"])
def test_a_command_without_arguments_only_answers_who_asks_for_help(here: Path, command: str) -> None:
    """It does nothing, nor with an argument that it has no use for."""
    told = by_shell(f"./run {command} --help", {}, cwd=here)
    assert (told.returncode, told.stdout.splitlines()[0]) == (0, "usage: ./run COMMAND [ARG...]")
    refused = by_shell(f"./run {command} now", {}, cwd=here)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"==> {command} takes no arguments\n"
