"""What there is: segments, VMs with their vNICs, clusters, datacenters."""

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from manager_stub.model import patterns
from manager_stub.model.fields import (
    Entity,
    HostAddress,
    HostId,
    Id,
    Path,
    Reference,
    SpoofGuard,
    Strict,
    Tag,
    Text,
    Uuid,
    check_vlan,
)

MAX_VNICS: Final = 10


class Segment(Entity):
    resource_type: Literal["Segment"] = "Segment"
    overlay_id: Annotated[int, Field(ge=1, lt=2**24)] | None = None
    """VXLAN network identifier."""
    vlan_ids: Annotated[list[Annotated[str, AfterValidator(check_vlan)]], Field(max_length=1)] = []
    spoofguard: SpoofGuard = "DISABLED"
    """Of its vNICs, where they have none of their own."""

    @model_validator(mode="after")
    def _overlay_or_vlan(self) -> "Segment":
        if self.overlay_id is not None and self.vlan_ids:
            raise ValueError("vlan_ids: a segment with an overlay_id has none")
        return self


class Vnic(Strict):
    """As NSX's segment port, it has a name and tags of its own."""

    id: Uuid
    display_name: Text | None = None
    tags: Annotated[list[Tag], Field(max_length=30)] = []
    mac: Annotated[str, Field(pattern=patterns.MAC)]
    segment_path: Path | None = None
    addresses: Annotated[list[HostAddress], Field(max_length=256)] = []
    spoofguard: SpoofGuard | None = None
    router: bool = False
    dhcp_server: bool = False


class Vm(Entity):
    resource_type: Literal["VirtualMachine"] = "VirtualMachine"
    os_name: Text | None = None
    """Of the guest. Like computer_name it is unknown until somebody says it, and no condition holds for what
    is unknown, not even NOTEQUALS."""
    computer_name: Text | None = None
    power_state: Literal["VM_RUNNING", "VM_STOPPED", "VM_SUSPENDED", "UNKNOWN"] = "UNKNOWN"
    vnics: Annotated[list[Vnic], Field(max_length=MAX_VNICS)] = []

    @field_validator("vnics")
    @classmethod
    def _each_once(cls, vnics: list[Vnic]) -> list[Vnic]:
        if len({vnic.id for vnic in vnics}) != len(vnics):
            raise ValueError("a vNIC is there twice")
        return vnics

    def references(self) -> Iterator[Reference]:
        for index, vnic in enumerate(self.vnics):
            if vnic.segment_path is not None:
                yield Reference(f"vnics.{index}.segment_path", vnic.segment_path, "segments")


class Cluster(Entity):
    resource_type: Literal["Cluster"] = "Cluster"
    hosts: list[HostId] = []

    def references(self) -> Iterator[Reference]:
        for index, host in enumerate(self.hosts):
            yield Reference(f"hosts.{index}", f"/vsfw/hosts/{host}", "hosts")


class Datacenter(Entity):
    resource_type: Literal["Datacenter"] = "Datacenter"
    clusters: list[Id] = []

    def references(self) -> Iterator[Reference]:
        for index, cluster in enumerate(self.clusters):
            yield Reference(f"clusters.{index}", f"/vsfw/clusters/{cluster}", "clusters")
