"""The objects of the REST interface, in the shape of the NSX Policy API: what a body may say.

A model here is what a caller sends, what the store keeps and what the pure modules read. Unknown fields are
refused; fields that only the manager sets (`READ_ONLY`) are accepted and dropped, so that an object that
was read can be written back. Objects name each other by path; whether the path exists is the register's
question, not the model's.
"""

from manager_stub.model.fields import (
    ANY,
    CATEGORIES,
    ENVIRONMENT,
    ETHERNET,
    MAX_SEQUENCE,
    READ_ONLY,
    SAYS_NOTHING,
    Entity,
    HostAddress,
    Id,
    Path,
    Reference,
    SpoofGuard,
    Strict,
    Tag,
    Text,
    Uuid,
)
from manager_stub.model.groups import (
    Condition,
    ConjunctionOperator,
    ExcludedMembers,
    Expression,
    ExternalIDExpression,
    Group,
    IPAddressExpression,
    MACAddressExpression,
    NestedExpression,
    PathExpression,
    pattern,
)
from manager_stub.model.inventory import MAX_VNICS, Cluster, Datacenter, Segment, Vm, Vnic
from manager_stub.model.policy import ExcludeList, Rule, SecurityPolicy
from manager_stub.model.schedulers import DAYS, FirewallScheduler, minute_of
from manager_stub.model.services import (
    ALGTypeServiceEntry,
    Entry,
    EtherTypeServiceEntry,
    ICMPTypeServiceEntry,
    IGMPTypeServiceEntry,
    IPProtocolServiceEntry,
    L4PortSetServiceEntry,
    NestedServiceServiceEntry,
    Service,
)
from manager_stub.model.timers import TIMERS, SessionTimerBinding, SessionTimerProfile
from manager_stub.model.traceflow import FieldsPacketData, TraceflowConfig, TraceflowRequest

__all__ = [
    "ANY",
    "CATEGORIES",
    "DAYS",
    "ENVIRONMENT",
    "ETHERNET",
    "MAX_SEQUENCE",
    "MAX_VNICS",
    "READ_ONLY",
    "SAYS_NOTHING",
    "TIMERS",
    "ALGTypeServiceEntry",
    "Cluster",
    "Condition",
    "ConjunctionOperator",
    "Datacenter",
    "Entity",
    "Entry",
    "EtherTypeServiceEntry",
    "ExcludeList",
    "ExcludedMembers",
    "Expression",
    "ExternalIDExpression",
    "FieldsPacketData",
    "FirewallScheduler",
    "Group",
    "HostAddress",
    "ICMPTypeServiceEntry",
    "IGMPTypeServiceEntry",
    "IPAddressExpression",
    "IPProtocolServiceEntry",
    "Id",
    "L4PortSetServiceEntry",
    "MACAddressExpression",
    "NestedExpression",
    "NestedServiceServiceEntry",
    "Path",
    "PathExpression",
    "Reference",
    "Rule",
    "SecurityPolicy",
    "Segment",
    "Service",
    "SessionTimerBinding",
    "SessionTimerProfile",
    "SpoofGuard",
    "Strict",
    "Tag",
    "Text",
    "TraceflowConfig",
    "TraceflowRequest",
    "Uuid",
    "Vm",
    "Vnic",
    "minute_of",
    "pattern",
]
