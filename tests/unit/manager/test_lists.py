"""What a list is asked for beside its pages: an order, and only some fields; as NSX's API has it."""

from typing import Any

import pytest

from tests.unit.manager.rest import DOMAIN, INFRA, Manager

SECTIONS = f"{DOMAIN}/security-policies"


@pytest.fixture
async def sections(manager: Manager) -> Manager:
    """Three beside the predefined ones, whose order by number is neither that by text nor that of names."""
    for id, number, name in (("a", 10, "Beta"), ("b", 9, "alpha"), ("c", 100, "gamma")):
        body = {"sequence_number": number, "display_name": name, "tags": [{"scope": "n", "tag": name}]}
        await manager.call("PUT", f"{SECTIONS}/{id}", body)
    return manager


async def ids(manager: Manager, query: str) -> list[Any]:
    results = (await manager.call("GET", f"{SECTIONS}?{query}"))["results"]
    return [each["id"] for each in results if not each["is_default"]]


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("sort_by=sequence_number", "bac"),
        ("sort_by=sequence_number&sort_ascending=false", "cab"),
        ("sort_by=display_name", "bac"),
        ("sort_by=tags.tag&sort_ascending=false", "cab"),
        ("sort_by=no.such.field", "abc"),
        ("", "abc"),
    ],
)
async def test_a_list_comes_in_the_order_that_was_asked_for(
    sections: Manager, query: str, order: str
) -> None:
    """Numbers by their size, texts without regard to case; otherwise, the list's own."""
    assert await ids(sections, query) == [*order]


async def test_an_order_goes_on_from_page_to_page(sections: Manager) -> None:
    """The cursor counts in the order of the whole list."""
    query = "sort_by=_create_time&sort_ascending=false&page_size=1"
    first = await sections.call("GET", f"{SECTIONS}?{query}")
    second = await sections.call("GET", f"{SECTIONS}?{query}&cursor={first['cursor']}")
    assert [page["results"][0]["id"] for page in (first, second)] == ["c", "b"]
    assert (first["sort_by"], first["sort_ascending"]) == ("_create_time", False)


async def test_a_list_has_the_fields_that_were_asked_for(sections: Manager) -> None:
    """And no others; what is no field of an object is not in it."""
    url = f"{SECTIONS}?included_fields=id,display_name,%20odd&sort_by=sequence_number"
    first = (await sections.call("GET", url))["results"][0]
    assert first == {"id": "b", "display_name": "alpha"}


async def test_addresses_of_a_group_are_texts_whatever_is_asked_for(manager: Manager) -> None:
    """A list of texts has no fields."""
    listed = {"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.2", "10.0.0.1"]}
    await manager.call("PUT", f"{DOMAIN}/groups/g", {"expression": [listed]})
    url = f"{INFRA}/domains/default/groups/g/members/ip-addresses?included_fields=x&sort_by=y"
    assert (await manager.call("GET", url))["results"] == ["10.0.0.1", "10.0.0.2"]


async def test_sections_say_how_many_rules_they_have(sections: Manager) -> None:
    """Where it is asked for; what was read can be written back."""
    await sections.call("PUT", f"{SECTIONS}/a/rules/r", {"action": "DROP"})
    listed = await sections.call("GET", f"{SECTIONS}?include_rule_count=true&sort_by=rule_count")
    assert [each["rule_count"] for each in listed["results"]] == [0, 0, 1, 1, 3]
    (section,) = (each for each in listed["results"] if each["id"] == "a")
    await sections.call("PUT", f"{SECTIONS}/a", section)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_who_follows_the_cursor_of_a_search_comes_to_its_end(sections: Manager, size: int) -> None:
    """Some clients stop at the cursor that is the count, others at the page that has none."""
    found, query = [], "resource_type:SecurityPolicy AND NOT id:default*"
    url = f"/policy/api/v1/search/query?page_size={size}&query={query}"
    page = await sections.call("GET", url)
    while "cursor" in page:
        found += [each["id"] for each in page["results"]]
        assert (int(page["cursor"]) == page["result_count"]) == (len(found) == 3)
        page = await sections.call("GET", f"{url}&cursor={page['cursor']}")
    assert (found, page["results"]) == (["a", "b", "c"], [])
