"""Services and their entries."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from manager_stub.model.fields import (
    Byte,
    Entity,
    Id,
    Path,
    Ports,
    Reference,
    Shown,
    Tag,
    Text,
    check_ethertype,
    check_one_port,
)


class ServiceEntry(Shown):
    id: Id | None = None
    display_name: Text | None = None
    description: Annotated[str, Field(max_length=1024)] | None = None
    tags: Annotated[list[Tag], Field(max_length=30)] | None = None


class L4PortSetServiceEntry(ServiceEntry):
    resource_type: Literal["L4PortSetServiceEntry"]
    l4_protocol: Literal["TCP", "UDP"]
    destination_ports: Ports = []
    source_ports: Ports = []


class ICMPTypeServiceEntry(ServiceEntry):
    resource_type: Literal["ICMPTypeServiceEntry"]
    protocol: Literal["ICMPv4", "ICMPv6"]
    icmp_type: Byte | None = None
    icmp_code: Byte | None = None

    @model_validator(mode="after")
    def _code_needs_type(self) -> "ICMPTypeServiceEntry":
        if self.icmp_code is not None and self.icmp_type is None:
            raise ValueError("icmp_code needs icmp_type")
        return self


class EtherTypeServiceEntry(ServiceEntry):
    resource_type: Literal["EtherTypeServiceEntry"]
    ether_type: Annotated[int, AfterValidator(check_ethertype)]


class ALGTypeServiceEntry(ServiceEntry):
    resource_type: Literal["ALGTypeServiceEntry"]
    alg: Literal["FTP", "TFTP"]
    destination_ports: Annotated[
        list[Annotated[str, AfterValidator(check_one_port)]], Field(min_length=1, max_length=1)
    ]
    source_ports: Ports = []


class IGMPTypeServiceEntry(ServiceEntry):
    resource_type: Literal["IGMPTypeServiceEntry"]


class NestedServiceServiceEntry(ServiceEntry):
    """Everything that another service is."""

    resource_type: Literal["NestedServiceServiceEntry"]
    nested_service_path: Path


class IPProtocolServiceEntry(ServiceEntry):
    resource_type: Literal["IPProtocolServiceEntry"]
    protocol_number: Byte


Entry = Annotated[
    L4PortSetServiceEntry
    | ALGTypeServiceEntry
    | ICMPTypeServiceEntry
    | IGMPTypeServiceEntry
    | IPProtocolServiceEntry
    | EtherTypeServiceEntry
    | NestedServiceServiceEntry,
    Field(discriminator="resource_type"),
]


class Service(Entity):
    resource_type: Literal["Service"] = "Service"
    service_entries: Annotated[list[Entry], Field(min_length=1, max_length=50)]

    @field_validator("service_entries")
    @classmethod
    def _of_one_layer(cls, entries: list[Entry]) -> list[Entry]:
        own = (entry for entry in entries if not isinstance(entry, NestedServiceServiceEntry))
        if len({isinstance(entry, EtherTypeServiceEntry) for entry in own}) > 1:
            raise ValueError("EtherTypes and what is within IP cannot be one service")
        return entries

    def references(self) -> Iterator[Reference]:
        return nested(self.service_entries)


def nested(entries: Iterable[Entry]) -> Iterator[Reference]:
    """The services that these entries name."""
    for index, entry in enumerate(entries):
        if isinstance(entry, NestedServiceServiceEntry):
            yield Reference(
                f"service_entries.{index}.nested_service_path", entry.nested_service_path, "services"
            )
