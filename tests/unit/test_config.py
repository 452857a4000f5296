"""The settings of vsfwd: what is taken, and that a mistake is named. How a file is read: test_configfile."""

import base64
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.policy_messages import HOST
from vsfwd.config import PATH, PREFIX, Config
from vsfwd.configfile import ConfigError, sample
from vsfwd.datapath.loader import Programs

KEY = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
COMPLETE = f"""
host_id = "{HOST}"
broker_urls = ["amqps://10.0.0.1:5671", "amqps://10.0.0.2:5671"]
ca = "/etc/vsfwd/ca.pem"
certificate = "/etc/vsfwd/host.pem"
key = "/etc/vsfwd/host.key"
manager_key = "{KEY}"
"""


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "vsfwd.toml"
    path.write_text(text)
    return Config.load(path)


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    """Identity, broker and keys must be said; everything else has a place of its own."""
    config = load(tmp_path, COMPLETE)
    assert config.broker_urls == ("amqps://10.0.0.1:5671", "amqps://10.0.0.2:5671")
    assert config.socket == Path("/run/vsfwd/vsfwd.sock")
    assert config.public_key().public_bytes_raw() == base64.b64decode(KEY)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (COMPLETE + 'brokers = "x"\n', "brokers"),
        (COMPLETE + "state_dir = 7\n", "state_dir"),
        (COMPLETE + "flows_per_vnic = 0\n", "flows_per_vnic"),
        (COMPLETE + "flows_per_vnic = 524289\n", "flows_per_vnic"),
        (COMPLETE + "log_rate = 0\n", "log_rate"),
        (COMPLETE + "reject_burst = -1\n", "reject_burst"),
        (
            COMPLETE + "log_burst = 9223372036854775807\n",
            "log_burst: must be a whole number from 1 to 2147483648",
        ),
        (COMPLETE + "statistics_period_s = 0\n", "statistics_period_s"),
        (COMPLETE + 'guard_ports = ["*"]\n', "guard_ports"),
        (COMPLETE + 'guard_ports = ["tap*", "a\\" accept"]\n', "guard_ports"),
        (COMPLETE + 'guard_ports = ["longer-than-any-device"]\n', "guard_ports"),
        (COMPLETE + "[components.backup]\nusers = [7]\n", "components.backup.topics: is missing; say what"),
        (COMPLETE + '[components.backup]\ntopics = ["A"]\n', "components.backup.topics: topic: 'A' is not"),
        (COMPLETE + '[components.B]\ntopics = ["a"]\n', "components: component: 'B' is not"),
        (COMPLETE.replace(HOST, "host-1"), "host_id"),
        (COMPLETE.replace("amqps://10.0.0.2", "amqp://10.0.0.2"), "broker_urls"),
        (COMPLETE.replace(KEY, "AAAA"), "manager_key"),
        (COMPLETE.replace('ca = "/etc/vsfwd/ca.pem"', ""), "ca"),
        ("host_id = ", "vsfwd.toml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    """Misspelt, missing, wrong: the error has the key in it."""
    with pytest.raises(ConfigError, match=named):
        load(tmp_path, text)


@pytest.mark.parametrize("name", ["log_rate", "log_burst", "reject_rate", "reject_burst"])
def test_the_highest_limit_is_one_that_programs_can_hold(name: str) -> None:
    """A burst at the lowest rate is the most; at 1000 ticks a second, as many as a kernel has."""
    most = getattr(Config.parse(COMPLETE + f"{name} = {2**31}\n", "x"), name)
    kernel = cast(Programs, SimpleNamespace(hz=1000))
    assert len(Programs.limit(kernel, 1, most)) == len(Programs.limit(kernel, most, most)) == 16
    with pytest.raises(ConfigError, match=name):
        Config.parse(COMPLETE + f"{name} = {2**31 + 1}\n", "x")


def test_several_values_that_are_wrong_are_told_at_once() -> None:
    """Also those that only this program knows to be wrong, and beside what is of the wrong type."""
    text = COMPLETE.replace(HOST, "host-1") + 'ca_dir = 1\nguard_ports = ["*", "tap*"]\nlog_rate = "5"\n'
    with pytest.raises(ConfigError) as error:
        Config.parse(text, "x")
    assert [line.partition(": ")[2].partition(":")[0] for line in str(error.value).splitlines()] == [
        *("host_id", "ca_dir", "guard_ports", "log_rate")
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """And who writes it."""
    with pytest.raises(ConfigError, match=r"none\.toml: No such file or directory; vsfwctl enroll writes it"):
        Config.load(tmp_path / "none.toml")


def test_the_sample_has_every_setting_as_it_is_without_one() -> None:
    """vsfwd/vsfwd.toml is what `python -m vsfwd.config` writes; with # taken away it is taken, and means what
    an empty one means, but for what enrolment writes and the example of a component."""
    text = (Path(__file__).parents[2] / "vsfwd" / "vsfwd.toml").read_text()
    assert text == sample(Config, str(PATH), PREFIX)
    said = "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))
    config, plain = Config.parse(said, "sample"), Config.parse(COMPLETE, "plain")
    optional = [each.name for each in msgspec.structs.fields(Config) if not each.required]
    assert [name for name in optional if getattr(config, name) != getattr(plain, name)] == ["components"]


@pytest.mark.parametrize("program", ["vsfwd", "vsfwd.components.context_agent"])
def test_a_configuration_can_be_checked_without_a_start(tmp_path: Path, program: str) -> None:
    """Status 0, or 2 with the file, the line and the key of each mistake, also where a file is missing that
    enrolment makes."""

    def check(text: str) -> tuple[int, str]:
        (tmp_path / "vsfwd.toml").write_text(text)
        argv = [sys.executable, "-m", program, "--config", str(tmp_path / "vsfwd.toml"), "--check-config"]
        done = subprocess.run(argv, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    here = COMPLETE.replace("/etc/vsfwd", str(tmp_path))
    missing = "No such file or directory; vsfwctl enroll writes it"
    unfound = [(4, "ca", "ca.pem"), (5, "certificate", "host.pem"), (6, "key", "host.key")]
    lines = [f"vsfwd.toml:{line}: {key}: {tmp_path}/{name}: {missing}" for line, key, name in unfound]
    status, said = check(here)
    assert (status, [line.partition(f": {tmp_path}/")[2] for line in said.splitlines()]) == (2, lines)
    status, said = check(here + "log_rat = 5\n")
    misspelt = "vsfwd.toml:8: log_rat: there is no such key; did you mean log_rate?"
    assert [line.partition(f": {tmp_path}/")[2] for line in said.splitlines()] == [*lines, misspelt]
    for name in ("ca.pem", "host.pem", "host.key"):
        (tmp_path / name).touch()
    assert check(here) == (0, f"{tmp_path}/vsfwd.toml: in order\n")
    status, said = check(here + "log_rat = 5\n")
    assert (status, said.partition(": ")[2]) == (
        2,
        f"{tmp_path}/vsfwd.toml:8: log_rat: there is no such key; did you mean log_rate?\n",
    )
