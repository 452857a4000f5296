"""Groups and their expressions."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from manager_stub.model.fields import Address, Entity, Mac, Strict


class Condition(Strict):
    resource_type: Literal["Condition"]
    member_type: Literal["VirtualMachine", "Segment"]
    key: Literal["Name", "Tag"]
    operator: Literal["EQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "NOTEQUALS"]
    value: Annotated[str, Field(min_length=1, max_length=512)]


class ConjunctionOperator(Strict):
    resource_type: Literal["ConjunctionOperator"]
    conjunction_operator: Literal["AND", "OR"]


class MACAddressExpression(Strict):
    resource_type: Literal["MACAddressExpression"]
    mac_addresses: Annotated[list[Mac], Field(min_length=1)]


class IPAddressExpression(Strict):
    resource_type: Literal["IPAddressExpression"]
    ip_addresses: Annotated[list[Address], Field(min_length=1)]


Expression = Annotated[
    Condition | ConjunctionOperator | IPAddressExpression | MACAddressExpression,
    Field(discriminator="resource_type"),
]


class Group(Entity):
    resource_type: Literal["Group"] = "Group"
    expression: list[Expression] = []

    @field_validator("expression")
    @classmethod
    def _terms_alternate_with_operators(cls, expression: list[Expression]) -> list[Expression]:
        for index, item in enumerate(expression):
            if isinstance(item, ConjunctionOperator) != bool(index % 2):
                raise ValueError(f"{index}: conditions or addresses and AND/OR operators must take turns")
        if expression and isinstance(expression[-1], ConjunctionOperator):
            raise ValueError(f"{len(expression) - 1}: an operator at the end joins nothing")
        for index, item in enumerate(expression):
            if isinstance(item, ConjunctionOperator) and item.conjunction_operator == "AND":
                sides = (expression[index - 1], expression[index + 1])
                if not all(isinstance(side, Condition) for side in sides):
                    raise ValueError(f"{index}: addresses can only be joined with OR")
        return expression
