"""The commands that the documents show, for the tests that execute them.

They stand in fences: `sh` is a script, `console` is a session, whose lines after `$`, or after `#` for root,
are said, and the others are shown. tests/README.md names the test for each section that has some."""

import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from vagrant.lab.processes import in_namespace

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_PROMPT: Final = re.compile(r"[$#] (?! )")


@dataclass(frozen=True)
class Block:
    heading: str
    kind: str
    """`sh`, `console`, or what else a fence says."""
    text: str

    @property
    def said(self) -> list[str]:
        """The commands of a session; a script is one."""
        if self.kind == "sh":
            return [self.text]
        return [line[2:] for line in self.text.splitlines() if _PROMPT.match(line)]


def pages() -> list[str]:
    """All documents, by their path in the checkout."""
    found = (*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md"))
    return sorted(str(path.relative_to(ROOT)) for path in found if "build" not in path.parts)


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text()
    for fence in _FENCE.finditer(text):
        headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text[: fence.start()]), re.MULTILINE)
        yield Block(headings[-1], fence[2], re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE))


def links(text: str) -> list[str]:
    """To files, without what is said after #."""
    targets = re.findall(r"\]\(([^)]*)\)", _FENCE.sub("", text))
    return [to for to in (target.partition("#")[0] for target in targets if "://" not in target) if to]


def commands(page: str, heading: str) -> list[str]:
    """What a section has one say, a script for each of its fences, in order."""
    return ["\n".join(block.said) for block in _shown(page, heading)]


def session(page: str, heading: str) -> list[tuple[str, list[str]]]:
    """Each command of a section's sessions, with the lines that it is shown to print."""
    found = []
    for block in _shown(page, heading):
        lines = block.text.splitlines()
        for number, line in enumerate(lines):
            if _PROMPT.match(line):
                shown = takewhile(lambda line: not _PROMPT.match(line), lines[number + 1 :])
                found.append((line[2:], list(shown)))
    return found


def _shown(page: str, heading: str) -> list[Block]:
    found = [block for block in blocks(page) if block.heading == heading and block.kind in ("sh", "console")]
    assert found, f"{page} shows no command under {heading!r}"
    return found


def headings(page: str) -> list[str]:
    """Of the sections that show commands."""
    return list(dict.fromkeys(block.heading for block in blocks(page) if block.kind in ("sh", "console")))


def by_shell(
    script: str, programs: Mapping[str, Sequence[str]], namespace: str | None = None, **how: Any
) -> "subprocess.CompletedProcess[str]":
    """By bash, which ends at the first command that fails. `programs`: what their names stand for."""
    named = "".join(f'{name}() {{ {shlex.join(argv)} "$@"; }}\n' for name, argv in programs.items())
    argv = in_namespace(namespace, ["bash", "-eu", "-o", "pipefail", "-c", named + script])
    return subprocess.run(argv, capture_output=True, text=True, **({"stdin": subprocess.DEVNULL} | how))


def checkout(directory: Path) -> Path:
    """This one, as it is after `./run setup`: links, and a venv that is ready for its pyproject.toml."""
    for path in ROOT.iterdir():
        if path.name not in (".git", ".venv"):
            (directory / path.name).symlink_to(path)
    venv = directory / ".venv"
    venv.mkdir()
    for path in Path(sys.prefix).iterdir():
        (venv / path.name).symlink_to(path)
    ready = venv / "made-from"
    ready.unlink(missing_ok=True)
    ready.write_text(hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest())
    return directory
