"""A PostgreSQL server of the test's own: Debian's programs, a data directory and a Unix socket in /tmp, no
port.

    with private_postgres() as server:
        Store(database.parse(server.make_database()))

It runs as the user postgres, since it refuses to run as root, and asks for a password. The package's system
service is never started, asked or touched.
"""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "postgres"
_SETTINGS = {"listen_addresses": "", "fsync": "off", "max_connections": "50", "log_statement": "none"}


@dataclass(frozen=True)
class Postgres:
    directory: Path
    password: str

    def make_database(self) -> str:
        """The URL of a new one, empty."""
        name = f"vsfw_{secrets.token_hex(4)}"
        self.sql(f"CREATE DATABASE {name}")
        return f"postgresql://{USER}:{self.password}@/{name}?host={self.directory}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        command = [_program("psql"), "-XAtq", "-h", self.directory, "-d", database, "-c", statement]
        return _run(command, PGPASSWORD=self.password).strip()

    def start(self) -> None:
        settings = " ".join(f"-c {name}='{value}'" for name, value in _SETTINGS.items())
        where = f"-c unix_socket_directories={self.directory}"
        log = self.directory / "log"
        _run([_program("pg_ctl"), "-w", "-D", self._data, "-l", log, "-o", f"{settings} {where}", "start"])

    def kill(self) -> None:
        """As a machine that loses its power: nobody is told."""
        subprocess.run(
            [_program("pg_ctl"), "-D", self._data, "-m", "immediate", "stop"],
            user=USER,
            stdout=subprocess.DEVNULL,
            check=False,
        )

    @property
    def _data(self) -> Path:
        return self.directory / "data"


@contextmanager
def private_postgres() -> Iterator[Postgres]:
    # Not in the test's own directory, which is root's alone; and a socket's path is short.
    directory = Path(tempfile.mkdtemp(prefix="vsfw-postgres-", dir="/tmp"))
    shutil.chown(directory, USER)
    server = Postgres(directory, secrets.token_urlsafe(9))
    password = directory / "password"
    password.write_text(server.password)
    shutil.chown(password, USER)
    try:
        _run(
            [_program("initdb"), "-D", directory / "data", "-A", "scram-sha-256", "--pwfile", password, "-N"]
        )
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)


def _program(name: str) -> Path:
    """Of the newest release that is installed: Debian keeps each in a directory of its own."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)) / name


def _run(command: list[object], **environment: str) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        user=USER,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout}")
    return done.stdout
