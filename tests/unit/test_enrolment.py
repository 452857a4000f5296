"""Enrolment at the host: nothing is said to a false manager, and whatever ends in between, the directory is
whole or the host asks again."""

import json
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509

from manager_stub.pki import Authority
from tests.unit.policy_messages import HOST
from vagrant.lab.waiting import wait_until
from vsfwd import enrolment, files, identity
from vsfwd.config import Config
from vsfwd.ctl import enrol as ctl_enrol
from vsfwd.enrolment import CONFIG, Enrolment, enrol
from vsfwd.protocol.messages import Renewal
from vsfwd.renewal import CertificateRenewal
from vsfwd.rest import Denied, Login, NotReady, Rest, Unreachable, Unusable

NOBODY = 65534
TOKEN = f"{'0' * 12}.{'s' * 43}"
MANAGER_KEY = "l6pYz0bMJQ5mF1c0PS0o0mQ5yF3zX0yqSOVtWJkqQpA="


class FalseOrTrue:
    """A manager with an authority of its own, and what was said to it. `busy`, `stands_by`: how often it is
    not ready yet, or does not lead; `answer` changes what it says to the one who enrols."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority.create()
        self.said: list[tuple[str, Any]] = []
        self.busy = self.stands_by = 0
        self.away = "this manager stands by; https://10.0.0.2:8443 leads"
        self.not_set_up = "the broker cannot be set up, ask again"
        self.answer: dict[str, Any] = {}
        certificate, key = self.authority.issue_server("manager", ["127.0.0.1"])
        chain = directory / "server.pem"
        chain.write_bytes(key + certificate)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(chain)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                manager.said.append((self.path, dict(self.headers)))
                if manager.stands_by:
                    manager.stands_by -= 1
                    self._answer(503, {"error_message": manager.away})
                    return
                self._answer(200, {"pem_encoded": manager.authority.pem.decode()})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                manager.said.append((self.path, body))
                if manager.busy:
                    manager.busy -= 1
                    self._answer(503, {"error_message": manager.not_set_up})
                elif body["token"] == TOKEN:
                    self._answer(200, manager.given(body["csr"]) | manager.answer)
                else:
                    self._answer(403, {"error_message": "there is no such token", "error_code": 403})

            def _answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def given(self, csr: str) -> dict[str, Any]:
        return {
            "id": HOST,
            "certificate": self.authority.issue_host(HOST, csr).decode(),
            "ca": self.authority.pem.decode(),
            "manager_key": MANAGER_KEY,
            "broker_urls": ["amqps://10.0.0.1:5671"],
        }


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[FalseOrTrue]:
    manager = FalseOrTrue(tmp_path)
    yield manager
    manager.close()


@pytest.fixture
def asked(manager: FalseOrTrue, tmp_path: Path) -> Enrolment:
    return Enrolment(manager.url, TOKEN, manager.authority.key_hash, tmp_path / "etc" / "vsfwd", "node-7")


def whole(directory: Path) -> Config:
    """What vsfwd starts with: its key and certificate belong together."""
    config = Config.load(directory / CONFIG)
    context = ssl.create_default_context(cafile=config.ca)
    context.load_cert_chain(config.certificate, config.key)
    return config


def test_a_directory_is_all_that_vsfwd_needs(manager: FalseOrTrue, asked: Enrolment) -> None:
    """Configuration, authority, key and certificate, and nothing besides. What is renewed is in a directory
    of its own, for its owner alone; nobody else writes the rest, and vsfwd's user may read it."""
    assert enrol(asked) == HOST
    config = whole(asked.directory)
    assert (config.host_id, config.manager_key) == (HOST, MANAGER_KEY)
    assert config.broker_urls == ("amqps://10.0.0.1:5671",)
    assert config.ca.read_bytes() == manager.authority.pem
    modes = {
        str(path.relative_to(asked.directory)): stat.S_IMODE(path.stat().st_mode)
        for path in asked.directory.rglob("*")
    }
    assert modes == {CONFIG: 0o644, "ca.pem": 0o644, "host": 0o700, "host/host.pem": 0o600}
    assert config.certificate == config.key == asked.directory / "host" / "host.pem"
    assert stat.S_IMODE(asked.directory.stat().st_mode) == 0o700


def test_what_root_writes_is_whose_the_directory_is(manager: FalseOrTrue, asked: Enrolment) -> None:
    """All of it, where vsfwd runs as a user that has a directory of its own; a part that is somebody's stays
    so."""
    asked.directory.mkdir(parents=True)
    for owner, own in (NOBODY, NOBODY), (0, NOBODY):
        os.chown(asked.directory, owner, owner)
        enrol(asked, again=True)
        found = {path.name: path.stat().st_uid for path in asked.directory.rglob("*")}
        assert found == {CONFIG: owner, "ca.pem": owner, "host": own, "host.pem": own}


def test_the_key_never_leaves_the_host(manager: FalseOrTrue, asked: Enrolment) -> None:
    """What goes out is a question, and then token, signing request and name."""
    enrol(asked)
    (path, _), (enrolling, body) = manager.said
    assert (path, enrolling) == ("/api/v1/vsfw/ca", "/api/v1/vsfw/enrol")
    assert body.keys() == {"token", "csr", "display_name"}
    assert (body["token"], body["display_name"]) == (TOKEN, "node-7")
    assert "PRIVATE" not in body["csr"]
    assert len(x509.load_pem_x509_csr(body["csr"].encode()).subject) == 0


def test_a_false_manager_is_told_nothing(manager: FalseOrTrue, asked: Enrolment, tmp_path: Path) -> None:
    """One with another authority: neither the token, nor a name, nor credentials from the environment."""
    meant = Enrolment(manager.url, TOKEN, Authority.create().key_hash, asked.directory)
    with pytest.raises(Unusable, match="it is not the manager that was meant") as refused:
        enrol(meant)
    assert manager.authority.key_hash not in str(refused.value)  # nobody is led to paste it
    assert "ask the manager's admin for ca_hash" in str(refused.value)
    [(path, headers)] = manager.said
    assert path == "/api/v1/vsfw/ca"
    assert "Authorization" not in headers
    assert not (asked.directory / CONFIG).exists()


def test_who_shows_the_right_authority_has_to_be_certified_by_it(
    manager: FalseOrTrue, asked: Enrolment
) -> None:
    """The authority's certificate is public: whoever repeats it has not its key, and is not told the
    token."""
    real = Authority.create()
    manager.authority = real  # the server's certificate stays that of the other
    with pytest.raises(Unreachable, match="not verified"):
        enrol(Enrolment(manager.url, TOKEN, real.key_hash, asked.directory))
    assert [path for path, _ in manager.said] == ["/api/v1/vsfw/ca"]


@pytest.mark.parametrize(
    "ca_hash", ["0" * 64, "sha256:0123", f"sha256:{'x' * 64}", f"sha256:{'0' * 64}\n", ""]
)
def test_a_hash_that_is_none_is_wrong_usage(manager: FalseOrTrue, asked: Enrolment, ca_hash: str) -> None:
    """Nobody is asked, and nobody is accused."""
    with pytest.raises(Unusable, match=r"--ca-hash: .* is not sha256: and 64"):
        enrol(Enrolment(manager.url, TOKEN, ca_hash, asked.directory))
    assert manager.said == []
    assert not asked.directory.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://", "https://u:p@127.0.0.1", "127.0.0.1:8443"])
def test_only_https_is_spoken(asked: Enrolment, url: str) -> None:
    """And no credentials in a URL."""
    with pytest.raises(Unusable, match="https"):
        enrol(Enrolment(url, TOKEN, asked.ca_hash, asked.directory))
    assert not asked.directory.exists()


def test_a_manager_that_is_not_ready_is_asked_again(manager: FalseOrTrue, asked: Enrolment) -> None:
    """With the same key; but not for ever. Who waits is told why, once."""
    manager.busy = 2
    told: list[str] = []
    enrol(asked, waits=told.append)
    assert [f"{manager.url}: " in reason and "ask again" in reason for reason in told] == [True]
    requests = [body["csr"] for path, body in manager.said if path.endswith("/enrol")]
    keys = {x509.load_pem_x509_csr(csr.encode()).public_key().public_numbers() for csr in requests}
    assert (len(requests), len(keys)) == (3, 1)
    manager.stands_by, manager.away = 2, "this manager stands by; nobody leads yet"
    told.clear()
    enrol(asked, again=True, waits=told.append)
    assert told == [f"{manager.url}: {manager.away}"]
    manager.busy = 10**6
    with pytest.raises(NotReady, match="ask again"):
        enrol(asked, again=True, patience_s=0.0)


@pytest.mark.parametrize(
    "answer",
    [
        {"certificate": "none"},
        {"id": "../../etc"},
        {"id": "3f2b8c1e-0000-4000-8000-000000000009"},
        {"manager_key": "short"},
        {"broker_urls": ["amqp://10.0.0.1"]},
        {"broker_urls": []},
        {"broker_urls": None},
    ],
    ids=lambda answer: ",".join(answer),
)
def test_an_answer_that_cannot_be_used_changes_nothing(
    manager: FalseOrTrue, asked: Enrolment, answer: dict[str, Any]
) -> None:
    """The host goes on with what it had: here an earlier enrolment."""
    enrol(asked)
    before = {path: path.read_bytes() for path in asked.directory.rglob("*") if path.is_file()}
    manager.answer = answer
    with pytest.raises(Unreachable, match="cannot be used"):
        enrol(asked, again=True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_certificate_for_another_key_is_not_taken(manager: FalseOrTrue, asked: Enrolment) -> None:
    """One of the right authority and for this host, but whose key somebody else has."""
    stranger = identity.signing_request(identity.new_key())
    manager.answer = {"certificate": manager.authority.issue_host(HOST, stranger).decode()}
    with pytest.raises(Unreachable, match="for another key"):
        enrol(asked)


class Killed(BaseException):
    """The process ends here."""


WRITES = 8
"""Key and authority while it waits; authority, host and configuration; three removals."""


@pytest.mark.parametrize("at", range(WRITES))
def test_a_host_that_is_killed_at_any_write_is_enrolled_the_next_time(
    manager: FalseOrTrue, asked: Enrolment, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """In the middle of a file, before it is put in its place. Asked again with the same token: with the same
    key, if that was said; and if the first attempt had done all, vsfwd starts with it."""
    count = 0

    def step(work: Any) -> Any:
        def stepped(*arguments: Any) -> None:
            nonlocal count
            if count == at:
                if work is files.replace:
                    path, content = arguments[:2]
                    path.with_name(f"{path.name}.new").write_bytes(content[: len(content) // 2])
                raise Killed
            count += 1
            work(*arguments)

        return stepped

    dying = SimpleNamespace(replace=step(files.replace), remove=step(files.remove))
    with monkeypatch.context() as patch:
        patch.setattr(enrolment, "files", dying)
        with pytest.raises(Killed):
            enrol(asked)
    assert enrol(asked) == HOST
    whole(asked.directory)
    said = [body["csr"] for path, body in manager.said if path.endswith("/enrol")]
    keys = {x509.load_pem_x509_csr(csr.encode()).public_key().public_numbers() for csr in said}
    assert len(keys) == 1


def test_a_host_that_is_killed_before_it_has_the_answer_asks_with_the_same_key(
    manager: FalseOrTrue, asked: Enrolment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the token would be void for it."""

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(identity, "check", kill)
        with pytest.raises(Killed):
            enrol(asked)
    enrol(asked)
    first, second = (
        x509.load_pem_x509_csr(body["csr"].encode()).public_key().public_numbers()
        for path, body in manager.said
        if path.endswith("/enrol")
    )
    assert first == second


def test_an_enrolled_directory_is_not_taken_by_accident(manager: FalseOrTrue, asked: Enrolment) -> None:
    """It says whose it is; --again has another key and certificate."""
    enrol(asked)
    before = whole(asked.directory).key.read_bytes()
    with pytest.raises(Unusable, match=HOST):
        enrol(asked)
    enrol(asked, again=True)
    after = whole(asked.directory).key.read_bytes()
    assert identity.load_key(before).private_numbers() != identity.load_key(after).private_numbers()


def test_a_renewal_that_was_asked_for_before_is_over(manager: FalseOrTrue, asked: Enrolment) -> None:
    """Its answer may come yet, with a certificate of an enrolment that the broker knows no more; and whoever
    has taken the keys of before does not have the next one."""
    enrol(asked)
    config, key = whole(asked.directory), identity.new_key()
    files.replace(config.key.with_name(identity.NEXT_KEY), identity.key_pem(key))
    late = manager.given(identity.signing_request(key))["certificate"]
    enrol(asked, again=True)
    before = config.key.read_bytes()
    assert CertificateRenewal(config, said_nothing).take(late) == "certificate: none was asked for"
    assert config.key.read_bytes() == before


def said_nothing(renewal: Renewal) -> None:
    raise AssertionError(renewal)


def test_what_an_operator_has_set_stays(manager: FalseOrTrue, asked: Enrolment, tmp_path: Path) -> None:
    """Enrolment writes its own settings, and leaves the others; a file it cannot read ends it first."""
    asked.directory.mkdir(parents=True)
    (asked.directory / CONFIG).write_text(
        'state_dir = "/srv/\\u00fc"\nipc_uids = [5, 7]\n# why\nlog_rate = 3\n'
        '[components.hello]\nusers = [7]\ntopics = ["greeting"]\n'
    )
    enrol(asked)
    config = whole(asked.directory)
    assert (config.state_dir, config.ipc_uids, config.log_rate) == (Path("/srv/ü"), (5, 7), 3)
    assert config.components["hello"].topics == ("greeting",)
    assert "# why\n" in (asked.directory / CONFIG).read_text()
    manager.said.clear()
    (asked.directory / CONFIG).write_text("log_rate = [")
    with pytest.raises(Unusable, match=CONFIG):
        enrol(asked)
    assert manager.said == []


COMMAND = [sys.executable, "-m", "vsfwd.ctl", "enroll"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["environment", "standard input", "file"])
def test_the_token_stands_in_no_process_list(
    manager: FalseOrTrue, asked: Enrolment, tmp_path: Path, way: str
) -> None:
    """While vsfwctl waits for the manager its command line is read, as anybody on the host could; and the
    token is used."""
    argv = [
        *COMMAND,
        "--manager",
        manager.url,
        "--ca-hash",
        asked.ca_hash,
        "--directory",
        str(asked.directory),
    ]
    environment = {**os.environ}
    if way == "environment":
        environment["VSFWCTL_ENROLMENT_TOKEN"] = TOKEN
    elif way == "file":
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        argv += ["--token-file", str(tmp_path / "token")]
    else:
        argv += ["--token-file", "-"]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    line = Path(f"/proc/{process.pid}/cmdline")
    wait_until(lambda: b"enroll" in line.read_bytes(), "the program's own command line")
    seen = line.read_bytes()
    said, _ = process.communicate(TOKEN if way == "standard input" else "", timeout=60)
    assert process.returncode == 0
    assert TOKEN.encode() not in seen
    assert f"enrolled as host {HOST}; start vsfwd" in said


@pytest.mark.parametrize("given", [(), ("--directory", "/srv/lab")], ids=["default", "another"])
def test_who_has_enrolled_is_told_what_to_start(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    """The units, each as its user: root's vsfwd would leave state and pins that theirs may not open. Those of
    a host that is enrolled again may run, as the host that it was. A directory of which they know nothing is
    said to the program."""
    monkeypatch.setattr(ctl_enrol, "enrol", lambda *_, **__: HOST)
    argv = ["--manager", "https://m:8443", "--token", TOKEN, "--ca-hash", "sha256:", *given]
    said = CliRunner().invoke(ctl_enrol.enroll, argv).output
    enrolled, _, then = said.strip().partition("; ")
    assert enrolled == f"enrolled as host {HOST}"
    if given:
        assert then == "start vsfwd --config /srv/lab/vsfwd.toml"
        return
    units = {path.stem for path in (Path(enrolment.__file__).parent / "systemd").glob("*.service")}
    before, _, named = then.partition("--now ")
    assert (before, set(named.split())) == ("next: systemctl enable ", units)
    _, _, again = CliRunner().invoke(ctl_enrol.enroll, [*argv, "--again"]).output.strip().partition("next: ")
    assert again == f"systemctl enable {named}; systemctl restart {named}"


def test_without_a_token_the_ways_to_say_it_are_named(asked: Enrolment) -> None:
    """Status 2, and nothing is asked."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VSFWCTL")}
    argv = [*COMMAND, "--manager", asked.manager, "--ca-hash", asked.ca_hash]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "--token-file" in done.stderr


def test_a_token_that_is_none_is_said_to_be_none(asked: Enrolment) -> None:
    """Without a word of other credentials; the key stays for the next attempt."""
    wrong = Enrolment(asked.manager, f"{'1' * 12}.{'s' * 43}", asked.ca_hash, asked.directory)
    with pytest.raises(Denied) as denied:
        enrol(wrong)
    assert str(denied.value) == "there is no such token"
    enrol(asked)


@pytest.mark.parametrize(
    ("away", "said"),
    [
        ("this manager stands by; https://10.0.0.2:8443 leads", "say --manager https://10.0.0.2:8443$"),
        ("this manager stands by; nobody leads yet", "nobody leads yet$"),
        ("the database: connection refused", "the database: connection refused$"),
    ],
)
def test_a_manager_that_is_away_says_why(
    manager: FalseOrTrue, asked: Enrolment, tmp_path: Path, away: str, said: str
) -> None:
    """Whom to ask instead, where it knows that. Nobody is at fault."""
    manager.stands_by, manager.away = 2, away
    with pytest.raises(NotReady, match=said):
        enrol(asked, patience_s=0.0)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(manager.authority.pem)
    rest = Rest(Login(manager=manager.url, ca=str(ca)))
    with pytest.raises(NotReady, match=said):
        rest.call("GET", "/api/v1/vsfw/policy")
    rest.close()


def test_a_manager_that_stands_by_is_not_waited_for(manager: FalseOrTrue, asked: Enrolment) -> None:
    """It says who leads, and is asked once: nobody waits a minute to read that. Nor does anybody where it
    comes to stand by in between."""
    manager.stands_by = 10**6
    with pytest.raises(NotReady, match=r"say --manager https://10\.0\.0\.2:8443$"):
        enrol(asked)
    assert [path for path, _ in manager.said] == ["/api/v1/vsfw/ca"]
    manager.stands_by, manager.busy, manager.not_set_up = 0, 10**6, manager.away
    with pytest.raises(NotReady, match=r"say --manager https://10\.0\.0\.2:8443$"):
        enrol(asked)
    assert [path for path, _ in manager.said][1:] == ["/api/v1/vsfw/ca", "/api/v1/vsfw/enrol"]


@pytest.mark.parametrize("token", ["foo", f"{TOKEN}s", TOKEN[1:], f"{TOKEN}\n"])
def test_what_is_no_token_is_wrong_usage(manager: FalseOrTrue, asked: Enrolment, token: str) -> None:
    """Copied in part, say. Nobody is asked, and it is not repeated: it may be most of a secret."""
    with pytest.raises(Unusable, match="not an enrolment token: 12 of") as refused:
        enrol(Enrolment(manager.url, token, asked.ca_hash, asked.directory))
    assert token not in str(refused.value)
    assert manager.said == []
    assert not asked.directory.exists()


def test_an_authority_s_answer_without_end_is_not_read_to_its_end(
    manager: FalseOrTrue, asked: Enrolment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers is not known yet."""
    huge = type("Huge", (), {"pem": b"x" * 10_000_000, "key_hash": asked.ca_hash})()
    monkeypatch.setattr(manager, "authority", huge)
    with pytest.raises(Unreachable, match="no manager"):
        enrol(asked)
