"""The manual page that is made of the commands, and what the shell completes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vsfwd.ctl import STATUSES, main
from vsfwd.manual import page


@pytest.fixture(scope="module")
def formatted() -> str:
    """As `man` shows it, in one column per word; groff has nothing to complain about."""
    argv = ["groff", "-man", "-Tutf8", "-ww", "-P-cbou"]
    done = subprocess.run(argv, input=page(), capture_output=True, text=True, check=True)
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
    headings = [line.removeprefix(".SH ") for line in page().splitlines() if line.startswith(".SH ")]
    assert [heading for heading in headings if heading in wanted] == list(wanted)
    for word in ("VSFWCTL_TOKEN", "VSFWD_SOCKET", "VSFWCTL_MANAGER", "manager.toml"):
        assert word in formatted


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("ex", ["explain", "export"]),
        ("apply --ex", ["--exit-code"]),
        ("early at", ["attach"]),
        ("hosts s", ["show", "sync"]),
        ("lint --kind RED", ["redundant"]),
        ("explain --i", ["--in", "--icmp-type", "--icmp-code"]),
    ],
)
def test_bash_completes_commands_and_options(tmp_path: Path, typed: str, found: list[str]) -> None:
    """By the script that `vsfwctl` itself writes."""
    program = tmp_path / "vsfwctl"
    program.write_text(f"#!{sys.executable}\nfrom vsfwd.ctl import main\nmain(prog_name='vsfwctl')\n")
    program.chmod(0o755)
    words = ["vsfwctl", *typed.split(" ")]
    script = f"""
        eval "$(_VSFWCTL_COMPLETE=bash_source vsfwctl)"
        complete -p vsfwctl >/dev/null
        COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1}
        _vsfwctl_completion vsfwctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    argv = ["bash", "-euc", script]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == found
