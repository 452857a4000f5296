"""Patterns of texts in bodies, paths and queries, and what is said of a text that is not of its pattern: what
is expected, with an example. The text itself is not repeated: it may be a secret."""

from typing import Final

from vsfwd.protocol.enrolment import TOKEN, TOKEN_WORDS

NUMBER: Final = "^[0-9]{1,9}$"
NO_NUL: Final = r"^[^\x00]*$"
"""PostgreSQL's texts have none (its manual, 8.3)."""
LINE: Final = r"^[^\x00-\x1f\x7f]*$"
ID: Final = r"^[A-Za-z0-9_.:-]{1,255}$"
PATH: Final = r"^/[A-Za-z0-9_.:/-]{1,1023}$"
INTENT: Final = r"^/infra/[A-Za-z0-9_.:/-]{1,1000}$"
PLACE: Final = r"^[A-Za-z0-9_.:/-]{1,1024}$"
TYPES: Final = r"^Type-[A-Za-z|]{1,1000}$"
USER: Final = r"^[a-z][a-z0-9_.-]{0,31}$"
COMPONENT: Final = r"^[a-z][a-z0-9-]{0,31}$"
TOPIC: Final = r"^[a-z][a-z0-9-]*(\.[a-z0-9-]+)*$"
MAC: Final = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"
DIGEST: Final = r"^[0-9a-f]{64}$"
THUMBPRINT: Final = r"^([0-9a-f]{64})?$"
ENROLMENT_TOKEN: Final = rf"^{TOKEN}$"

EXPECTED: Final = {
    NUMBER: "a number of nine digits at most, as 1000",
    NO_NUL: "text without NUL characters",
    LINE: "one line, without control characters",
    ID: "an id of letters, digits and _ . : -, as web-1",
    PATH: "a path, as /infra/domains/default/groups/web",
    INTENT: "a path of the policy, as /infra/domains/default/groups/web",
    PLACE: "the id or the path of a vNIC, as /vsfw/vnics/22222222-0000-4000-8000-000000000001",
    TYPES: "Type- and names of types, as Type-Group|Service",
    USER: "a name of small letters, digits and _ . -, with a letter first, 32 at most, as anna",
    COMPONENT: "a component's name of small letters, digits and -, 32 at most, as context-agent",
    TOPIC: "a topic of small letters, digits and -, with dots between, as vm.users",
    MAC: "a MAC address in lower case with colons, as 02:00:00:00:00:01",
    DIGEST: "the digest of a diff, 64 of 0-9 and a-f",
    THUMBPRINT: "the SHA-256 of a certificate, as 3f0a...: 64 of 0-9 and a-f, without the colons and "
    "capitals of `openssl x509 -noout -fingerprint -sha256`; or empty",
    ENROLMENT_TOKEN: TOKEN_WORDS,
}
