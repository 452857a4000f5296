"""The manager's REST interface as `vsfwctl` asks it: HTTPS, and nothing else.

It stands here because vsfwctl is part of vsfwd, and it takes nothing from the manager's code: what it knows
of the manager is the interface. The daemon has no part in it; it speaks AMQP (an import contract says so).

A password or a token comes from the environment, from a file that nobody else can read, or from whoever
sits at the terminal: never from the command line, which every process of the machine can see. A file's goes
only to the manager and the user the file names.
"""

import os
import re
import ssl
import stat
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import httpx
import msgspec

CONFIG: Final = Path(click.get_app_dir("vsfwctl")) / "manager.toml"
CONNECT_S: Final = 10.0
ANSWER_S: Final = 300.0
"""A policy of ten thousand rules takes the manager seconds."""
_ROLE: Final = 401
"""NSX's error code of a call that a role may not make; 403 is that of a wrong password."""
_OTHER_NAME: Final = (62, 64)
"""OpenSSL's codes for a certificate of another host name or address (X509_V_ERR_HOSTNAME_MISMATCH,
X509_V_ERR_IP_ADDRESS_MISMATCH)."""


class Unusable(Exception):
    """What was said about the manager cannot be used; the text names the option, variable or file."""


class Unreachable(Exception):
    """No manager answers; the text says what to look at."""


class NotReady(Unreachable):
    """A manager that cannot answer now: it stands by, its database is away (HTTP's 503); the text has its
    word."""

    def __init__(self, url: str, reason: str) -> None:
        found = re.search(r"(https://\S+) leads$", reason)
        self.leader = found[1] if found else ""
        """Whom to ask instead, where that is known."""
        super().__init__(f"{url}: {reason}{f'; say --manager {self.leader}' if self.leader else ''}")


class Denied(Exception):
    """The manager says no; the text says why, and what to do next. `reasons`: where it is for several."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manager, and who asks. `token` takes the place of user and password. As a file it is TOML."""

    manager: str = ""
    ca: str = ""
    user: str = ""
    password: str = ""
    token: str = ""

    @classmethod
    def of(cls, manager: str | None, ca: str | None, user: str | None, config: Path | None) -> "Login":
        """Options and environment before the file. Raises Unusable."""
        file = _read(config or CONFIG) if config or CONFIG.exists() else cls()
        url = checked_url(manager or file.manager)
        password, token = os.environ.get("VSFWCTL_PASSWORD", ""), os.environ.get("VSFWCTL_TOKEN", "")
        name = user or ("" if token else file.user)
        if not (password or token) and url == file.manager.rstrip("/"):
            password = file.password if name == file.user else ""
            token = "" if user else file.token
        if not (token or name):
            raise Unusable("nobody to log in as: say --user or VSFWCTL_USER, or VSFWCTL_TOKEN has a token")
        return cls(url, ca or file.ca, name, password, token)


def _read(path: Path) -> Login:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            login = msgspec.toml.decode(file.read(), type=Login)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from None
    if (login.password or login.token) and stat.S_IMODE(status.st_mode) & 0o077:
        raise Unusable(f"{path}: others can read the password or token in it; chmod 600 {path}")
    return login


def checked_url(url: str) -> str:
    if not url:
        raise Unusable("which manager? Say --manager, VSFWCTL_MANAGER, or `manager` in " + str(CONFIG))
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise Unusable(f"{url}: not https://HOST[:PORT]")
    return url.rstrip("/")


class Rest:
    def __init__(self, login: Login) -> None:
        """Raises Unusable."""
        self.url, self._ca = login.manager, login.ca
        self._is_anybody = not (login.user or login.token)
        headers = {"Authorization": f"Bearer {login.token}"} if login.token else {}
        self._client = httpx.Client(
            base_url=login.manager,
            verify=_trust(login.ca),
            auth=(login.user, login.password) if login.user and not login.token else None,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=False,  # a proxy of the environment would be told who asks for what
        )

    def close(self) -> None:
        self._client.close()

    def call(self, method: str, path: str, body: Any = None, **query: object) -> Any:
        """The body of the answer. Raises Unreachable or Denied."""
        params = {key: str(value) for key, value in query.items() if value is not None}
        try:
            answer = self._client.request(method, path, json=body, params=params)
        except httpx.TimeoutException:
            raise Unreachable(f"{self.url}: no answer in time; see the manager's log") from None
        except httpx.TransportError as error:
            raise Unreachable(f"{self.url}: {self._why(error)}") from None
        if not answer.is_success:
            raise self._refusal(answer)
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise Unreachable(f"{self.url}: whatever answers there is no manager") from None

    def every(self, path: str, **query: object) -> list[Any]:
        """All results of a list that comes in pages."""
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = self.call("GET", path, cursor=cursor, **query)
            found += page["results"]
            cursor = page.get("cursor")
            if cursor is None:
                return found

    def _why(self, error: BaseException) -> str:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            return f"{error}; does the manager run, and is --manager right?"
        if cause.verify_code in _OTHER_NAME:
            return f"{cause.verify_message}; say --manager with the name the certificate has"
        trusted = self._ca or "the certificates of this machine"
        return f"not verified by {trusted}: {cause.verify_message}; --ca is the manager's ca.crt"

    def _refusal(self, answer: httpx.Response) -> Denied | NotReady:
        try:
            body = answer.json()
            reason, code = str(body["error_message"]), body.get("error_code")
            related = [str(each["error_message"]) for each in body.get("related_errors", ())]
        except (ValueError, KeyError, TypeError, AttributeError):
            return Denied(f"{self.url}: answered {answer.status_code}, and not as a manager does")
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return NotReady(self.url, reason)
        if answer.status_code == 401 or (answer.status_code == 403 and code != _ROLE):
            credentials = "; see VSFWCTL_USER, VSFWCTL_PASSWORD and VSFWCTL_TOKEN"
            return Denied(reason if self._is_anybody else reason.rstrip(".") + credentials)
        if answer.status_code == 412:
            return Denied(f"{reason}; nothing was changed, look at the differences again")
        if answer.status_code >= 500:
            return Denied(f"{reason}; that is the manager's fault, its log says more")
        return Denied(*(related or [reason]))


def _trust(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except ssl.SSLError:
        raise Unusable(f"--ca: {ca}: no certificate in it") from None
    except OSError as error:
        raise Unusable(f"--ca: {ca}: {error.strerror}") from None
