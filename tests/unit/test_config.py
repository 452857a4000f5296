"""The configuration file: what is taken, and that a mistake is named."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.policy_messages import HOST
from vsfwd.config import Config, ConfigError

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
        (COMPLETE + "statistics_period_s = 0\n", "statistics_period_s"),
        (COMPLETE + 'guard_ports = ["*"]\n', "guard_ports"),
        (COMPLETE + 'guard_ports = ["tap*", "a\\" accept"]\n', "guard_ports"),
        (COMPLETE + 'guard_ports = ["longer-than-any-device"]\n', "guard_ports"),
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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path stands in the error."""
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        Config.load(tmp_path / "none.toml")
