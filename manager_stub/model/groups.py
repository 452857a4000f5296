"""Groups and their expressions: which shapes there are. How much there may be of each is `group_limits`.

A condition is about a VM, a segment, a segment port (a vNIC, here) or the cluster or datacenter a vNIC is
plugged in; the last two are this manager's own, of the same shape. Whether what an expression names exists is
the register's question.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import re2
from pydantic import Field, field_validator, model_validator

from manager_stub.model.fields import (
    Address,
    Entity,
    Id,
    Mac,
    Path,
    Reference,
    Shown,
    Tag,
    Text,
)

MAX_INSTRUCTIONS: Final = 1000
"""Of a compiled pattern. RE2 takes at most that many steps for a character, so one name costs a millisecond
at worst."""

_KEYS: Final = {
    "VirtualMachine": ("Name", "Tag", "OSName", "ComputerName"),
    "Segment": ("Name", "Tag"),
    "SegmentPort": ("Name", "Tag"),
    "Cluster": ("Name", "Tag"),
    "Datacenter": ("Name", "Tag"),
}
KIND_OF_PATH: Final = {
    "/infra/domains/default/groups/": "groups",
    "/infra/segments/": "segments",
    "/vsfw/vms/": "vms",
    "/vsfw/vnics/": "vnics",
    "/vsfw/clusters/": "clusters",
    "/vsfw/datacenters/": "datacenters",
}
"""What a PathExpression may name: by how the path begins, the kind of the object."""


@lru_cache(maxsize=4096)
def pattern(text: str) -> Any:
    """Compiled by RE2, whose time is linear in the text it is matched with; so it knows no back-references.
    Raises ValueError."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{text!r} is not a regular expression (RE2): {reason}") from None
    if compiled.programsize > MAX_INSTRUCTIONS:
        raise ValueError(
            f"{text[:80]!r} compiles to {compiled.programsize} instructions, at most {MAX_INSTRUCTIONS}"
        )
    return compiled


class Item(Shown):
    """An element of an expression. What NSX adds to each when it is read is dropped."""

    id: Id | None = None
    display_name: Text | None = None
    description: Annotated[str, Field(max_length=1024)] | None = None
    tags: Annotated[list[Tag], Field(max_length=30)] | None = None


class ConjunctionOperator(Item):
    resource_type: Literal["ConjunctionOperator"]
    conjunction_operator: Literal["AND", "OR"]


class MACAddressExpression(Item):
    resource_type: Literal["MACAddressExpression"]
    mac_addresses: Annotated[list[Mac], Field(min_length=1)]


class IPAddressExpression(Item):
    resource_type: Literal["IPAddressExpression"]
    ip_addresses: Annotated[list[Address], Field(min_length=1)]


class PathExpression(Item):
    resource_type: Literal["PathExpression"]
    paths: Annotated[list[Path], Field(min_length=1)]

    @field_validator("paths")
    @classmethod
    def _of_members(cls, paths: list[str]) -> list[str]:
        for index, path in enumerate(paths):
            if _kind(path) is None:
                raise ValueError(
                    f"{index}: {path!r} is none of a group, segment, VM, vNIC, cluster or datacenter"
                )
        return paths


class ExternalIDExpression(Item):
    """VMs and vNICs by the ids they have elsewhere, here their UUIDs. They need not exist."""

    resource_type: Literal["ExternalIDExpression"]
    member_type: Literal["VirtualMachine", "VirtualNetworkInterface"]
    external_ids: Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1)]


class ExcludedMembers(Item):
    ip_address_expression: IPAddressExpression | None = None
    path_expression: PathExpression | None = None


class Condition(Item):
    """`value` of a Tag is "scope|tag"; a part that is empty, or a scope that is left out with its bar, is not
    asked for. Of IN and NOTIN it is a list with commas, of MATCHES a regular expression of the whole text."""

    resource_type: Literal["Condition"]
    member_type: Literal["VirtualMachine", "Segment", "SegmentPort", "Cluster", "Datacenter"]
    key: Literal["Name", "Tag", "OSName", "ComputerName"]
    operator: (
        Literal["EQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "NOTEQUALS", "IN", "NOTIN", "MATCHES"] | None
    ) = None
    scope_operator: Literal["EQUALS", "NOTEQUALS"] | None = None
    value: Annotated[str, Field(min_length=1, max_length=512)]
    exclude: ExcludedMembers | None = None

    @property
    def asked(self) -> tuple[str, str]:
        """Scope and tag that `value` asks for; of other keys than Tag the text."""
        if self.key != "Tag":
            return "", self.value
        scope, bar, tag = self.value.partition("|")
        return (scope, tag) if bar else ("", self.value)

    @model_validator(mode="after")
    def _makes_sense(self) -> "Condition":
        if self.key not in _KEYS[self.member_type]:
            raise ValueError(f"key: {self.key} is not known of a {self.member_type}")
        scope, text = self.asked
        if self.key != "Tag" and self.operator is None:
            raise ValueError("operator: missing")
        if self.scope_operator and not scope:
            raise ValueError("scope_operator: value asks for no scope")
        if not scope and not text:
            raise ValueError("value: asks for neither scope nor tag")
        if not text and self.operator not in (None, "EQUALS"):
            raise ValueError(f"operator: {self.operator} needs a tag in value")
        if self.operator == "MATCHES":
            try:
                pattern(text)
            except ValueError as error:
                raise ValueError(f"value: {error}") from None
        return self


class NestedExpression(Item):
    resource_type: Literal["NestedExpression"]
    expressions: Annotated[
        list[Annotated[Condition | ConjunctionOperator, Field(discriminator="resource_type")]],
        Field(min_length=1),
    ]

    @property
    def conditions(self) -> list[Condition]:
        return [item for item in self.expressions if isinstance(item, Condition)]

    @field_validator("expressions")
    @classmethod
    def _conditions_joined_with_and(cls, items: list[Any]) -> list[Any]:
        _check_turns(items)
        for index, item in enumerate(items):
            if isinstance(item, ConjunctionOperator) and item.conjunction_operator != "AND":
                raise ValueError(f"{index}: within a NestedExpression conditions are joined with AND")
        return items


Expression = Annotated[
    Condition
    | ConjunctionOperator
    | NestedExpression
    | IPAddressExpression
    | MACAddressExpression
    | PathExpression
    | ExternalIDExpression,
    Field(discriminator="resource_type"),
]


class Group(Entity):
    resource_type: Literal["Group"] = "Group"
    expression: list[Expression] = []
    extended_expression: Annotated[list[Any], Field(max_length=0)] = []
    """Identity groups, which do not exist yet."""
    group_type: Annotated[list[Literal["IPAddress"]], Field(max_length=1)] = []

    @field_validator("expression")
    @classmethod
    def _criteria_joined(cls, expression: list[Any]) -> list[Any]:
        _check_turns(expression)
        for index, item in enumerate(expression):
            if isinstance(item, ConjunctionOperator) and item.conjunction_operator == "AND":
                sides = (expression[index - 1], expression[index + 1])
                if not all(isinstance(side, Condition | NestedExpression) for side in sides):
                    raise ValueError(f"{index}: what is listed can only be joined with OR")
        return expression

    @model_validator(mode="after")
    def _of_its_type(self) -> "Group":
        for index, item in enumerate(self.expression):
            if self.group_type and not isinstance(item, IPAddressExpression | ConjunctionOperator):
                raise ValueError(f"expression.{index}: a group of the type IPAddress lists addresses only")
        return self

    def references(self) -> Iterator[Reference]:
        for index, item in enumerate(self.expression):
            for field, paths in _named(item):
                for place, path in enumerate(paths):
                    yield Reference(f"expression.{index}.{field}.{place}", path, _kind(path) or "")


def _check_turns(items: list[Any]) -> None:
    for index, item in enumerate(items):
        if isinstance(item, ConjunctionOperator) != bool(index % 2):
            raise ValueError(f"{index}: conditions or addresses and AND/OR operators must take turns")
    if items and isinstance(items[-1], ConjunctionOperator):
        raise ValueError(f"{len(items) - 1}: an operator at the end joins nothing")


def _named(item: Any) -> Iterator[tuple[str, list[str]]]:
    """Fields with paths."""
    match item:
        case PathExpression():
            yield "paths", item.paths
        case Condition():
            if item.exclude and item.exclude.path_expression:
                yield "exclude.path_expression.paths", item.exclude.path_expression.paths
        case NestedExpression():
            for index, inner in enumerate(item.expressions):
                for field, paths in _named(inner):
                    yield f"expressions.{index}.{field}", paths


def _kind(path: str) -> str | None:
    return next((kind for prefix, kind in KIND_OF_PATH.items() if path.startswith(prefix)), None)
