"""The manual pages that are made of the commands, and what the shell completes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.harness.documents import ROOT, by_shell, commands
from vsfwd.ctl.manual import page
from vsfwd.ctl.programs import SECTIONS
from vsfwd.ctl.vsfwctl import STATUSES, main


@pytest.fixture(scope="module")
def formatted() -> str:
    return shown(page("vsfwctl"))


def shown(page: str) -> str:
    """As `man` shows it, in one column per word; groff has nothing to complain about."""
    argv = ["groff", "-man", "-Tutf8", "-ww", "-P-cbou"]
    done = subprocess.run(argv, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return squeezed(done.stdout)


def squeezed(text: str) -> str:
    """Without line breaks and hyphenation, and with plain hyphens and quotes."""
    joined = text.replace("\u2010\n", "").replace("\u2010", "-").replace("\u2212", "-")
    return "".join(
        joined.replace("\u2019", "'").replace("\u2018", "`").replace("\u00ad", "").split()
    ).replace("-", "")


def leaves(context: click.Context) -> Iterator[click.Context]:
    if not isinstance(context.command, click.Group):
        yield context
        return
    for name, command in context.command.commands.items():
        yield from leaves(click.Context(command, info_name=name, parent=context))


def test_every_command_option_and_status_is_in_it(formatted: str) -> None:
    """With what it says of itself, to the last word."""
    contexts = list(leaves(click.Context(main, info_name="vsfwctl")))
    assert len(contexts) > 15
    for context in contexts:
        assert squeezed(context.command_path) in formatted
        assert squeezed((context.command.help or "").replace("\b", "")) in formatted, context.command_path
        for option in context.command.params:
            for text in option.get_help_record(context) or () if isinstance(option, click.Option) else ():
                assert squeezed(text) in formatted, (context.command_path, text)
    for code, text in STATUSES.items():
        assert squeezed(f"{code}{text}") in formatted


def test_it_has_the_sections_of_a_manual_page(formatted: str) -> None:
    """In the order of man-pages(7); variables and files are among them."""
    wanted = ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES")
    headings = [line.removeprefix(".SH ") for line in page("vsfwctl").splitlines() if line.startswith(".SH ")]
    assert [heading for heading in headings if heading in wanted] == list(wanted)
    for word in ("VSFWCTL_TOKEN", "VSFWD_SOCKET", "VSFWCTL_MANAGER", "manager.toml"):
        assert word in formatted


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vsfwd", ("--guard",)),
        ("vsfw-manager", ("reset-password [OPTIONS]", "Make keys, certificates and database.")),
        ("vsfw-context-agent", ("--check-config", "/etc/vsfwd/vsfwd.toml")),
        ("vsfw-control-plane-agent", ("--check-config",)),
    ],
)
def test_every_other_program_has_a_page_of_its_options(name: str, words: tuple[str, ...]) -> None:
    """And of its commands."""
    assert SECTIONS[name] == 8
    text = shown(page(name))
    assert squeezed(f"{name} [OPTIONS]") in text
    assert all(squeezed(each) in text for each in words)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("vsfwctl ex", ["explain", "export"]),
        ("vsfwctl apply --ex", ["--exit-code"]),
        ("vsfwctl early at", ["attach"]),
        ("vsfwctl hosts s", ["show", "sync"]),
        ("vsfwctl lint --kind RED", ["redundant"]),
        ("vsfwctl explain --i", ["--in", "--icmp-type", "--icmp-code"]),
        ("vsfw-manager re", ["renew", "reset-password", "restore"]),
    ],
)
def test_bash_completes_commands_and_options(tmp_path: Path, typed: str, found: list[str]) -> None:
    """By the script that the program itself writes."""
    words = typed.split(" ")
    name = words[0]
    program = tmp_path / name
    started = "from vsfwd.ctl.programs import program"
    program.write_text(f"#!{sys.executable}\n{started}\nprogram({name!r}).command(prog_name={name!r})\n")
    program.chmod(0o755)
    variable, function = f"_{name.upper()}_COMPLETE", f"_{name}_completion"
    script = f"""
        eval "$({variable.replace("-", "_")}=bash_source {name})"
        complete -p {name} >/dev/null
        COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1}
        {function.replace("-", "_")} {name}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    argv = ["bash", "-euc", script]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == found


@pytest.mark.slow
def test_the_shown_commands_write_completions_and_manual_pages(tmp_path: Path) -> None:
    """For whoever is logged in, for everybody, as files."""
    programs = {"python": [sys.executable]}
    for name in ("vsfwctl", "vsfw-manager"):
        run = f"from vsfwd.ctl.programs import program; program({name!r}).command(prog_name={name!r})"
        programs[name] = [sys.executable, "-c", run]
    (tmp_path / "etc").mkdir()
    for script in commands("vsfwd/ctl/README.md", "Completion and manual"):
        here = script.replace("/etc/bash_completion.d", f"{tmp_path}/etc")
        done = by_shell(here, programs, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert (done.returncode, done.stderr) == (0, ""), script
    assert "complete -o nosort -F _vsfwctl_completion vsfwctl" in (tmp_path / "etc/vsfwctl").read_text()
    assert "resetpassword" in shown((tmp_path / "vsfw-manager.8").read_text())
    assert (tmp_path / "vsfwctl.1").read_text() == page("vsfwctl")


@pytest.mark.parametrize("unit", sorted(ROOT.glob("*/systemd/*.service")), ids=lambda unit: unit.name)
def test_a_unit_names_the_manual_page_of_its_program(unit: Path) -> None:
    """Which `systemctl status` shows."""
    text = unit.read_text()
    (name,) = re.findall(r"^ExecStart=/usr/bin/([\w-]+)", text, re.MULTILINE)
    (pages,) = re.findall(r"^Documentation=(.*)", text, re.MULTILINE)
    assert pages.split()[0] == f"man:{name}({SECTIONS[name]})"
