"""vsfw-manager: what is wrong is said in one line, with what to do next."""

import socket
from pathlib import Path

from click.testing import CliRunner, Result

from manager_stub.__main__ import main
from manager_stub.state_dir import Addresses, StateDir


def run(*argv: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in argv])


def test_help_and_version_are_told() -> None:
    """By the names that vsfwctl has for them too."""
    assert "serve" in run("-h").output
    assert "..." not in run("-h").output.partition("Commands:")[2]
    assert run("serve", "-h").exit_code == 0
    assert run("--version").output.startswith("vsfw-manager, version ")


def test_an_address_that_is_none_is_a_bad_argument(tmp_path: Path) -> None:
    """Exit status 2, the option named, nothing made."""
    broker = ("--broker", "127.0.0.1:1,nonsense", "--broker-api", "https://127.0.0.1:1")
    said = run("init", "--state", tmp_path / "new", "--listen", "127.0.0.1:1", *broker)
    assert (said.exit_code, "'--broker': 'nonsense' is not HOST:PORT" in said.output) == (2, True)
    assert not (tmp_path / "new").exists()


def test_a_broker_api_that_is_no_url_is_a_bad_argument(tmp_path: Path) -> None:
    """Of several each is looked at; nothing is made."""
    for wrong in (
        "10.0.0.1:15671",
        "http://10.0.0.1:15671",
        "https://10.0.0.1",
        "https://",
        "https://[::1:2",
    ):
        broker = ("--broker", "127.0.0.1:1", "--broker-api", f"https://127.0.0.1:1,{wrong}")
        said = run("init", "--state", tmp_path / "new", "--listen", "127.0.0.1:1", *broker)
        assert (said.exit_code, "'--broker-api': " in said.output) == (2, True), wrong
        assert not (tmp_path / "new").exists()


def test_a_setting_that_is_no_address_is_named(tmp_path: Path) -> None:
    """With its file, before anything is served: somebody may have written it there by hand."""
    StateDir(tmp_path).create(Addresses("127.0.0.1:1", "127.0.0.1:1", "10.0.0.1:15671"))
    said = run("serve", "--state", tmp_path)
    assert (said.exit_code, said.output) == (
        1,
        f"Error: {tmp_path}/manager.json: broker_api: '10.0.0.1:15671' is not https://HOST:PORT\n",
    )


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    """With the option that said it; 192.0.2.0/24 is nobody's (RFC 5737)."""
    StateDir(tmp_path).create(Addresses("192.0.2.1:443", "127.0.0.1:1", "https://127.0.0.1:1"))
    said = run("serve", "--state", tmp_path)
    assert (said.exit_code, said.output) == (
        1,
        "Error: 192.0.2.1:443: 192.0.2.1 is no address of this machine; see --listen at init\n",
    )


def test_a_directory_that_is_no_manager_is_no_one_to_join(tmp_path: Path) -> None:
    """Nor to serve, or to renew: it is named, with the way to make one."""
    state = ("--state", tmp_path / "new")
    for command in (
        ("join", *state, "--with", tmp_path, "--listen", "127.0.0.1:1"),
        ("serve", "--state", tmp_path),
        ("renew", "--state", tmp_path),
    ):
        said = run(*command)
        assert (said.exit_code, said.output) == (
            1,
            f"Error: {tmp_path}: there is no manager here; make one with init\n",
        )


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """One line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        StateDir(tmp_path).create(Addresses(listen, "127.0.0.1:1", "https://127.0.0.1:1"))
        said = run("serve", "--state", tmp_path)
    assert (said.exit_code, said.output.count("\n")) == (1, 1)
    assert said.output.startswith(f"Error: {listen}: Address already in use")
