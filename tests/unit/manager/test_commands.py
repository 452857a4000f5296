"""vsfw-manager: what is wrong is said in one line, with what to do next."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import tomlkit
from click.testing import CliRunner, Result

from manager_stub.__main__ import main
from manager_stub.config import PATH, PREFIX, Config
from manager_stub.state_dir import StateDir
from tests.harness.manager import COMMAND, alone, command
from vsfwd.configfile import parse, sample

NOBODY = "there is no manager here; make one with init"


def run(config: Config, *argv: object) -> Result:
    arguments = command(config, *map(str, argv))
    return CliRunner().invoke(main, arguments[len(COMMAND) :])


def test_help_and_version_are_told() -> None:
    """By the names that vsfwctl has for them too."""

    def said(*argv: str) -> str:
        return CliRunner().invoke(main, argv).output

    assert "serve" in said("-h")
    assert "..." not in said("-h").partition("Commands:")[2]
    assert "--check-config" in said("serve", "-h")
    assert said("--version").startswith("vsfw-manager, version ")


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("listen", "8443", "'8443' is not HOST:PORT"),
        ("listen", "0.0.0.0:8443", "'0.0.0.0:8443' is every address"),
        ("listen", "[::]:8443", "'[::]:8443' is every address"),
        ("listen", "[::0]:8443", "'[::0]:8443' is every address"),
        ("listen", "10.0.0.1:0", "'10.0.0.1:0' is not HOST:PORT"),
        ("brokers", ["127.0.0.1:1", "nonsense"], "'nonsense' is not HOST:PORT"),
        ("brokers", [], "at least one is needed"),
        (
            "broker_apis",
            ["https://127.0.0.1:1", "10.0.0.1:15671"],
            "'10.0.0.1:15671' is not https://HOST:PORT",
        ),
        ("broker_apis", ["http://10.0.0.1:15671"], "'http://10.0.0.1:15671' is not https://HOST:PORT"),
        ("broker_apis", ["https://10.0.0.1"], "'10.0.0.1' is not HOST:PORT"),
        (
            "broker_apis",
            ["https://user:secret@10.0.0.1:15671"],
            "a user or a password before 10.0.0.1 has no place here",
        ),
        ("broker_apis", ["https://"], "'https://' is not https://HOST:PORT"),
        ("broker_apis", ["https://[::1:2"], "Invalid IPv6 URL"),
        ("state_dirs", "/x", "there is no such key; did you mean state_dir?"),
    ],
)
@pytest.mark.parametrize("argv", [("init",), ("serve", "--check-config")], ids=["init", "check"])
def test_a_mistake_in_the_configuration_is_named(
    tmp_path: Path, key: str, value: object, why: str, argv: tuple[str, ...]
) -> None:
    """Exit status 2, with file, line and key; nothing is made."""
    path = tmp_path / "manager.toml"
    said = msgspec.to_builtins(alone(tmp_path / "state"), enc_hook=str) | {key: value}
    path.write_text(tomlkit.dumps({key: said.pop(key), **said}))
    done = CliRunner().invoke(main, ["--config", str(path), *argv])
    assert (done.exit_code, f"Error: {path}:1: {key}: {why}" in done.output) == (2, True), done.output
    assert not (tmp_path / "state").exists()


def test_a_configuration_can_be_checked_without_a_start(tmp_path: Path) -> None:
    """Before init there is nothing to start with; then it is in order, also by what the environment says."""
    config = alone(tmp_path / "state")
    said = run(config, "serve", "--check-config")
    assert (said.exit_code, said.output) == (1, f"Error: {config.state_dir}: {NOBODY}\n")
    StateDir(config).create()
    assert run(config, "serve", "--check-config").output == f"{tmp_path}/state.toml: in order\n"
    wrong = CliRunner(env={"VSFW_MANAGER_LISTEN": "8443"})
    said = wrong.invoke(main, ["--config", str(tmp_path / "state.toml"), "serve", "--check-config"])
    assert (said.exit_code, said.output) == (
        2,
        "Error: environment: VSFW_MANAGER_LISTEN: '8443' is not HOST:PORT\n",
    )


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may look into, which those of pytest are not."""
    with TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize(
    "argv", [("serve", "--check-config"), ("renew",), ("init",)], ids=["check", "renew", "init"]
)
def test_who_may_not_look_into_the_state_directory_is_told_so(open_path: Path, argv: tuple[str, ...]) -> None:
    """In a line, with who may."""
    config = alone(open_path / "state")
    StateDir(config).create()
    arguments = command(config, *argv)[len(COMMAND) :]
    open_path.joinpath("state.toml").chmod(0o644)
    os.seteuid(65534)
    try:
        said = CliRunner().invoke(main, arguments)
    finally:
        os.seteuid(0)
    assert (said.exit_code, said.output) == (
        2,
        f"Error: {config.state_dir}: Permission denied; run it as root\n",
    )


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    """With the setting that said it; 192.0.2.0/24 is nobody's (RFC 5737)."""
    config = msgspec.structs.replace(alone(tmp_path / "state"), listen="192.0.2.1:443")
    StateDir(config).create()
    said = run(config, "serve")
    assert (said.exit_code, said.output) == (
        1,
        "Error: 192.0.2.1:443: 192.0.2.1 is no address of this machine; see listen in manager.toml\n",
    )


def test_a_directory_that_is_no_manager_is_no_one_to_join(tmp_path: Path) -> None:
    """Nor to serve, or to renew: it is named, with the way to make one."""
    config = alone(tmp_path / "state")
    for argv, directory in (
        (("serve",), config.state_dir),
        (("renew",), config.state_dir),
        (("reset-password",), config.state_dir),
    ):
        said = run(config, *argv)
        assert (said.exit_code, said.output) == (1, f"Error: {directory}: {NOBODY}\n")


def test_who_joins_names_the_directory_of_a_manager(tmp_path: Path) -> None:
    """Not init: that would make a second authority."""
    said = run(alone(tmp_path / "state"), "join", "--with", tmp_path)
    assert (said.exit_code, said.output) == (
        1,
        f"Error: --with: no manager's state in {tmp_path}; name the first manager's state directory\n",
    )
    assert not (tmp_path / "state").exists()


def test_init_where_a_manager_is_says_what_next(tmp_path: Path) -> None:
    """Nothing is made anew."""
    config = alone(tmp_path / "state")
    StateDir(config).create()
    said = run(config, "init")
    assert said.exit_code == 1
    assert "there is a manager here already; serve runs it, reset-password gives" in said.output


def test_init_after_one_that_was_interrupted_says_what_next(tmp_path: Path) -> None:
    """What it has made is not a manager, and none is made of it."""
    config = alone(tmp_path / "state")
    StateDir(config).create()
    (config.state_dir / "signing.pub").unlink()
    said = run(config, "init")
    assert said.exit_code == 1
    assert f"{config.state_dir}: the directory is not empty; put aside what is in it" in said.output


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With where it is said how to make one."""
    said = CliRunner().invoke(main, ["--config", str(tmp_path / "none.toml"), "serve", "--check-config"])
    assert (said.exit_code, said.output) == (
        2,
        f"Error: {tmp_path}/none.toml: No such file or directory; see manager_stub/INSTALL.md\n",
    )


def test_several_mistakes_in_the_configuration_are_told_at_once(tmp_path: Path) -> None:
    """Each on a line of its own."""
    (tmp_path / "x.toml").write_text('listen = "8443"\nbrokers = ["a", "b"]\nbroker_apis = 5\n')
    said = CliRunner().invoke(main, ["--config", str(tmp_path / "x.toml"), "serve", "--check-config"])
    assert said.output.replace(f"{tmp_path}/", "").splitlines() == [
        "Error: x.toml:1: listen: '8443' is not HOST:PORT",
        "Error: x.toml:2: brokers: 'a' is not HOST:PORT",
        "Error: x.toml:2: brokers: 'b' is not HOST:PORT",
        'Error: x.toml:3: broker_apis: must be a list of text, as ["https://10.0.0.1:15671"]',
    ]


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """One line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = alone(tmp_path / "state", taken.getsockname()[1])
        StateDir(config).create()
        said = run(config, "serve")
    assert (said.exit_code, said.output.count("\n")) == (1, 1)
    assert said.output.startswith(f"Error: {config.listen}: Address already in use")


def test_the_sample_has_every_setting_as_it_is_without_one() -> None:
    """manager_stub/manager.toml is what `python -m manager_stub.config` writes; with # taken away it is
    taken."""
    text = (Path(__file__).parents[3] / "manager_stub" / "manager.toml").read_text()
    assert text == sample(Config, str(PATH), PREFIX)
    said = "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))
    assert parse(Config, said, "sample").listen == "10.0.0.1:8443"
