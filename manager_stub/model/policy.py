"""Sections, rules and the exclusion list."""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from manager_stub.model.fields import ANY, Entity, Path, Reference, Sequence, Text, check_address, check_vlans
from manager_stub.model.services import Entry, nested

_GROUPS: Final = "/infra/domains/default/groups/"
_SERVICES: Final = "/infra/services/"


class Rule(Entity):
    resource_type: Literal["Rule"] = "Rule"
    source_groups: Annotated[list[str], Field(min_length=1, max_length=128)] = [ANY]
    sources_excluded: bool = False
    destination_groups: Annotated[list[str], Field(min_length=1, max_length=128)] = [ANY]
    destinations_excluded: bool = False
    services: Annotated[list[str], Field(max_length=128)] = []
    """Paths, or ANY. Empty: `service_entries` only, and any service when there are none either."""
    service_entries: Annotated[list[Entry], Field(max_length=50)] = []
    scope: Annotated[list[str], Field(min_length=1, max_length=128)] = [ANY]
    direction: Literal["IN", "OUT", "IN_OUT"] = "IN_OUT"
    action: Literal["ALLOW", "DROP", "REJECT", "JUMP_TO_APPLICATION"]
    ip_protocol: Literal["IPV4", "IPV6", "IPV4_IPV6"] = "IPV4_IPV6"
    logged: bool = False
    tag: Text = ""
    """In the packet log, at the end of its lines."""
    disabled: bool = False
    monitored: bool = False
    """Counted and logged where it would have decided, never enforced. NSX has no word for it."""
    vlan_ids: Annotated[list[Annotated[str, AfterValidator(check_vlans)]], Field(max_length=128)] = []
    """Ids and ranges, of an Ethernet rule only. Empty: frames without a tag. NSX has no word for it."""
    sequence_number: Sequence | None = None
    """None: a rule in a list takes its place in the list, a rule alone comes first."""
    notes: Annotated[str, Field(max_length=2048)] = ""

    @field_validator("source_groups", "destination_groups")
    @classmethod
    def _paths_addresses_or_any(cls, values: list[str]) -> list[str]:
        values = _alone_if_any(values)
        for value in values:
            if value != ANY and not value.startswith("/"):
                _check_end(value)
        return values

    @field_validator("services")
    @classmethod
    def _services_or_any(cls, values: list[str]) -> list[str]:
        return _paths(values, _SERVICES)

    @field_validator("scope")
    @classmethod
    def _groups_or_any(cls, values: list[str]) -> list[str]:
        return _paths(values, _GROUPS)

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Rule":
        if self.sources_excluded and self.source_groups == [ANY]:
            raise ValueError("sources_excluded: nothing is left when ANY is excluded")
        if self.destinations_excluded and self.destination_groups == [ANY]:
            raise ValueError("destinations_excluded: nothing is left when ANY is excluded")
        if self.service_entries and self.services == [ANY]:
            raise ValueError("services: ANY beside service_entries; leave one of them out")
        return self

    def references(self) -> Iterator[Reference]:
        for field in ("source_groups", "destination_groups", "scope", "services"):
            for index, value in enumerate(getattr(self, field)):
                if value.startswith("/"):
                    yield Reference(
                        f"{field}.{index}", value, "services" if field == "services" else "groups"
                    )
        yield from nested(self.service_entries)


def _alone_if_any(values: list[str]) -> list[str]:
    """In any case, as in NSX (its API guide, BaseRule)."""
    values = [ANY if value.upper() == ANY else value for value in values]
    if ANY in values and len(values) > 1:
        raise ValueError("ANY stands alone")
    return values


def _check_end(text: str) -> None:
    """Who writes a group's bare name is told how a group is named."""
    try:
        check_address(text)
    except ValueError:
        if not re.search(r"[^\d.:/-]", text):  # meant as an address
            raise
        raise ValueError(f"{text!r} is neither an address, nor a path as {_GROUPS}{text}, nor ANY") from None


def _paths(values: list[str], home: str) -> list[str]:
    values = _alone_if_any(values)
    for value in values:
        if value != ANY and not value.startswith("/"):
            raise ValueError(f"{value!r} is neither a path as {home}{value}, nor ANY")
    return values


class SecurityPolicy(Entity):
    """A section. Its scope, where it has one, takes the place of its rules' scopes, as in NSX."""

    resource_type: Literal["SecurityPolicy"] = "SecurityPolicy"
    category: Literal["Ethernet", "Emergency", "Infrastructure", "Environment", "Application"] = "Application"
    sequence_number: Sequence = 0
    scope: Annotated[list[str], Field(max_length=128)] = [ANY]
    stateful: bool = True
    tcp_strict: bool = True
    """Only a SYN begins a TCP connection. Unless said otherwise, which is the other way round in NSX."""
    existing_flows: Literal["RECHECK", "KEEP", "CUT"] = "RECHECK"
    """Of the section's flows when the policy changes. NSX has no word for it."""
    monitored: bool = False
    """Of all its rules."""
    locked: bool = False
    """Only who locked it changes it, and its rules."""
    comments: Annotated[str, Field(max_length=2048)] = ""
    """On the lock."""
    lock_modified_by: Text | None = None
    lock_modified_time: int | None = None
    """Of these two, what the manager says counts."""
    scheduler_path: Path | None = None
    """When its rules are in force; None: always."""
    rules: list[Rule] | None = None
    """In a body only; rules are stored as objects of their own."""

    @field_validator("scope")
    @classmethod
    def _paths_or_any(cls, values: list[str]) -> list[str]:
        """Empty is a scope that is not said, as NSX's clients send it."""
        return _paths(values, _GROUPS) or [ANY]

    @model_validator(mode="after")
    def _stateless_has_no_flows(self) -> "SecurityPolicy":
        if not self.stateful and self.tcp_strict and "tcp_strict" in self.model_fields_set:
            raise ValueError("tcp_strict: a section that is not stateful knows no connections")
        if not self.stateful and self.existing_flows != "RECHECK":
            raise ValueError("existing_flows: a section that is not stateful has none")
        return self

    def references(self) -> Iterator[Reference]:
        for index, value in enumerate(self.scope):
            if value != ANY:
                yield Reference(f"scope.{index}", value, "groups")
        if self.scheduler_path is not None:
            yield Reference("scheduler_path", self.scheduler_path, "firewall-schedulers")


class ExcludeList(Entity):
    """VMs on which nothing is enforced, by themselves or as members of groups. Those whose address a group
    lists are no members: an address is nothing to switch a firewall off by."""

    resource_type: Literal["PolicyExcludeList"] = "PolicyExcludeList"
    members: Annotated[list[Path], Field(max_length=1000)] = []

    def references(self) -> Iterator[Reference]:
        for index, value in enumerate(self.members):
            kind = "vms" if value.startswith("/vsfw/vms/") else "groups"
            yield Reference(f"members.{index}", value, kind)
