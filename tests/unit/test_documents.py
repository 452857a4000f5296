"""Every command that a document shows is executed by a test, which tests/README.md names; and what documents
say of commands in passing is right."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from typing import Final

import click
import pytest

from tests.harness.documents import ROOT, blocks, headings, pages
from tests.harness.references import PATHS, REFERENCES
from vsfwd.ctl.programs import SECTIONS, program

WRITTEN: Final = [page for page in pages() if page not in REFERENCES and page not in (PATHS, "CHANGELOG.md")]
"""By hand."""
PROGRAM: Final = re.compile(
    r"(\./run|\.venv/bin/\S+|vagrant|systemctl|apt|apt-get|vsfwd|vsfwctl|vsfw-manager)( (?! )|$)"
)
INLINE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NAMED: Final = re.compile(r"`([\w/.]+)`")


def rows() -> Iterator[tuple[str, str, str]]:
    """Page, heading or nothing where it is all of the page, and what executes the commands there."""
    section = (ROOT / "tests/README.md").read_text().split("## Commands of the documents\n")[1]
    for line in re.findall(r"^\| \[.*$", section.split("\n## ")[0], re.MULTILINE):
        where, by = line.strip("| ").split(" | ")
        name = re.match(r"\[(.*?)\]\(.*?\)(?:, (.*))?", where)
        assert name, where
        yield name[1], name[2] or "", by


def executed() -> dict[tuple[str, str], str]:
    return {
        (page, heading): by
        for page, one, by in rows()
        for heading in (one.split(" · ") if one else headings(page))
    }


def test_every_section_with_commands_has_its_row() -> None:
    """A command that is new stands in a section that a test takes whole, or wants a row, and a test."""
    shown = {(page, heading) for page in WRITTEN for heading in headings(page)}
    assert shown == executed().keys()


@pytest.mark.parametrize(("page", "heading"), executed())
def test_what_is_named_takes_the_commands_of_that_section(page: str, heading: str) -> None:
    """By page and heading, or of all of the page; a script has the very words."""
    commands = [said for block in blocks(page) if block.heading == heading for said in block.said]
    for name in NAMED.findall(executed()[page, heading]):
        path = ROOT / name if (ROOT / name).exists() else ROOT / "tests" / name
        text = path.read_text()
        if path.suffix == ".py":
            assert page in text, name
            assert heading in text or f'headings("{page}")' in text or "headings(page)" in text, name
        else:
            lines = [line.partition("  #")[0].strip() for said in commands for line in said.splitlines()]
            assert any(line in text for line in lines if line), name


@pytest.mark.parametrize("page", WRITTEN)
def test_commands_are_in_fences(page: str) -> None:
    """What is only indented is a drawing, an output, or text of another language."""
    text = re.sub(r"^( *)```.*?^\1```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4,}(?:[$#] )?(\S.*)$", text, re.MULTILINE)
    assert [line for line in indented if PROGRAM.match(line)] == []


@pytest.mark.parametrize("page", WRITTEN)
def test_what_is_said_of_commands_in_passing_is_right(page: str) -> None:
    """There are such commands, with such options."""
    for said in INLINE.findall((ROOT / page).read_text()):
        name, *words = said.split()
        if name in SECTIONS and words:
            words = shlex.split(said.replace("\\|", "|"))[1:]
            wrong = unknown(program(name), words)
            assert wrong is None, f"{said}: {wrong}"


def unknown(context: click.Context, words: list[str]) -> str | None:
    """What in it no command has; what is in capitals, or left out (…), stands for something."""
    command = context.command
    options = {name for param in command.params if isinstance(param, click.Option) for name in param.opts}
    options |= {"--help", "-h"}
    own = (
        list(takewhile(lambda word: word.startswith("-"), words))
        if isinstance(command, click.Group)
        else words
    )
    for word in own:
        if re.match(r"--?[a-z0-9]", word) and word.partition("=")[0] not in options:
            return word
    if not isinstance(command, click.Group):
        return None
    rest = [word for word in words if word not in options]
    following = next((word for word in rest if re.fullmatch(r"[a-z][a-z-]*", word)), None)
    if following is None:
        return None
    if following not in command.commands:
        return following
    there = click.Context(command.commands[following], info_name=following, parent=context)
    return unknown(there, rest[rest.index(following) + 1 :])
