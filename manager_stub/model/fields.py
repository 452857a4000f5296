"""Words and shapes that all objects are made of: typed texts and numbers, tags, references, what every
object has."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from manager_stub.model import patterns
from vsfwd.policy.model import MIN_ETHERTYPE, TAG_ETHERTYPES, is_uuid, parse_address

ANY: Final = "ANY"
MAX_SEQUENCE: Final = 2**31 - 1
MAX_PORT_ELEMENTS: Final = 15
ETHERNET: Final = "Ethernet"
ENVIRONMENT: Final = "Environment"
CATEGORIES: Final = (ETHERNET, "Emergency", "Infrastructure", ENVIRONMENT, "Application")
READ_ONLY: Final = frozenset(
    {"path", "relative_path", "parent_path", "unique_id", "realization_id", "rule_id", "is_default"}
    | {"marked_for_delete", "overridden", "_system_owned", "_protection", "excluded_vnics"}
    | {"_create_time", "_create_user", "_last_modified_time", "_last_modified_user"}
    | {"_links", "_schema", "_self", "owner_id", "origin_site_id", "remote_path"}
    | {"internal_section_id", "default_rule_id", "rule_count", "service_type", "state", "reference"}
)
"""What a manager says of an object, and nobody to a manager: the read-only fields of the NSX Policy API's
PolicyConfigResource, sections, groups and services, and our own."""
SAYS_NOTHING: Final[dict[str, Any]] = {
    "profiles": ["ANY"],
    "extended_expression": [],
    "children": [],
    "logging_enabled": False,
    "connectivity_strategy": "NONE",
    "connectivity_preference": "NONE",
    "application_connectivity_strategy": [],
}
"""Fields of NSX's objects that have no counterpart here, and the value by which they ask for nothing. NSX's
clients send them, so that value is taken and forgotten; any other is refused."""


def check_address(text: str) -> str:
    parse_address(text)
    return text


def check_port(text: str) -> str:
    low, dash, high = text.partition("-")
    if not (low.isdecimal() and (high.isdecimal() or not dash)) or not text.isascii():
        raise ValueError(f"{text!r} is not a port or a range of ports")
    if not int(low) <= int(high or low) <= 65535:
        raise ValueError(f"{text!r} is not a range within 0-65535")
    return text


def check_one_port(text: str) -> str:
    if not check_port(text).isdecimal() or int(text) == 0:
        raise ValueError(f"{text!r} is not one port")
    return text


def check_port_elements(ports: list[str]) -> list[str]:
    """NSX's limit, in NSX's way of counting."""
    elements = sum(2 if "-" in port else 1 for port in ports)
    if elements > MAX_PORT_ELEMENTS:
        raise ValueError(
            f"{elements} port elements are over the limit of {MAX_PORT_ELEMENTS}; a range counts as two"
        )
    return ports


def check_vlan(text: str) -> str:
    if not text.isascii() or not text.isdecimal() or not 0 <= int(text) <= 4094:
        raise ValueError(f"{text!r} is not a VLAN id in 0-4094")
    return text


def check_vlans(text: str) -> str:
    low, dash, high = text.partition("-")
    check_vlan(low)
    if dash and int(low) > int(check_vlan(high)):
        raise ValueError(f"{text!r} is not a range of VLAN ids")
    return text


def check_ethertype(number: int) -> int:
    if not MIN_ETHERTYPE <= number <= 0xFFFF:
        raise ValueError(f"{number} is not an EtherType, which is {MIN_ETHERTYPE}-65535")
    if number in TAG_ETHERTYPES:
        raise ValueError(f"{number} is that of a VLAN tag: say vlan_ids in the rule")
    return number


def check_mac(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text.lower()):
        raise ValueError(f"{text!r} is not a MAC address with colons")
    return text.lower()


def check_host_address(text: str) -> str:
    prefixes = parse_address(text)
    if "/" in text or "-" in text:
        raise ValueError(f"{text!r} is not the address of one host")
    if prefixes[0].bits == 0:
        raise ValueError(f"{text!r} is not the address of a host")
    return str(ip_address(text))  # one text for one address: equal addresses are found by it


def check_uuid(text: str) -> str:
    if not is_uuid(text):
        raise ValueError(f"{text!r} is not a UUID in lower case")
    return text


def check_host_id(text: str) -> str:
    """A host is named by its id, since nothing says that there is only one of its name."""
    if not is_uuid(text):
        raise ValueError(f"{text!r} is not the id of a host: `vsfwctl hosts` shows ids and names")
    return text


Text = Annotated[str, Field(max_length=255, pattern=patterns.LINE)]
Id = Annotated[str, Field(pattern=patterns.ID)]
_UUID = Field(json_schema_extra={"pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"})
Uuid = Annotated[str, AfterValidator(check_uuid), _UUID]
HostId = Annotated[str, AfterValidator(check_host_id), _UUID]
Path = Annotated[str, Field(pattern=patterns.PATH)]
Address = Annotated[str, Field(max_length=100), AfterValidator(check_address)]
Mac = Annotated[str, AfterValidator(check_mac)]
HostAddress = Annotated[str, Field(max_length=100), AfterValidator(check_host_address)]
Port = Annotated[str, Field(max_length=11), AfterValidator(check_port)]
Ports = Annotated[list[Port], AfterValidator(check_port_elements)]
Byte = Annotated[int, Field(ge=0, le=255)]
SpoofGuard = Literal["DISABLED", "TOFU", "MANUAL"]
Sequence = Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]


class Reference(NamedTuple):
    """Another object, named in a field; `kind` is the kind it must be of."""

    field: str
    path: str
    kind: str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Tag(Strict):
    scope: Annotated[Text, Field(max_length=128)] = ""
    tag: Annotated[Text, Field(max_length=256)] = ""


class Shown(Strict):
    """What the manager shows with fields of its own, and clients write back with fields they leave unset."""

    read_only: ClassVar[frozenset[str]] = READ_ONLY | {"_revision"}

    @model_validator(mode="before")
    @classmethod
    def _drop_what_says_nothing(cls, body: Any) -> Any:
        """Null is in NSX's API a field that is not there."""
        if not isinstance(body, dict):
            return body
        return {key: value for key, value in body.items() if value is not None and not cls._empty(key, value)}

    @classmethod
    def _empty(cls, key: str, value: Any) -> bool:
        if key in cls.model_fields:
            return False
        return key in cls.read_only or (key in SAYS_NOTHING and bool(value == SAYS_NOTHING[key]))


class Entity(Shown):
    """What every stored object has. `id` and `_revision` in a body are checked by the API, never stored."""

    read_only: ClassVar[frozenset[str]] = READ_ONLY

    id: Id | None = None
    display_name: Annotated[Text, Field(min_length=1)] | None = None
    description: Annotated[str, Field(max_length=1024)] = ""
    tags: Annotated[list[Tag], Field(max_length=30)] = []
    revision: Annotated[int | None, Field(alias="_revision")] = None

    def references(self) -> Iterator[Reference]:
        """The objects this one names."""
        return iter(())
