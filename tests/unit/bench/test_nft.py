"""The rival's rule sets hold the rules that vsfwd's policy holds."""

import re

import pytest

from tests.bench import nft
from tests.bench.policy import CLIENT, FAR, NEAR, PORTS, USED_PORTS, objects, pairs


@pytest.mark.parametrize("rules", [10, 1000])
def test_a_linear_rule_set_has_n_rules_and_the_last_decides(rules):
    """Nothing before the last rule matches the client."""
    accepting = [line for line in nft.linear(rules).splitlines() if line.endswith(" accept")]
    assert len(accepting) == rules
    assert [CLIENT.v4 in line for line in accepting] == [False] * (rules - 1) + [True]
    assert NEAR.v4 in accepting[-1]
    assert FAR.v4 in accepting[-1]


def test_a_set_has_an_element_for_each_rule_and_those_of_the_measured_traffic():
    """n - 1 pairs, and the client to either server by TCP and UDP on the ports in use."""
    elements = re.search(r"elements = \{ (.*) \} \}", nft.hashed(1000))[1].split(", ")
    assert len(elements) == len(set(elements)) == 999 + 2 * 2 * len(USED_PORTS)
    assert f"{CLIENT.v4} . {NEAR.v4} . tcp . {USED_PORTS[0]}" in elements


def test_only_the_last_rule_of_the_policy_names_the_client_and_a_server():
    """The vNICs' other groups are named by many rules, but never by one together."""
    policy = objects(2000)
    client, server = policy["vnics"][CLIENT.vnic], policy["vnics"][NEAR.vnic]
    matching = [
        id
        for id, rule in policy["rules"].items()
        if set(rule.sources.groups) & set(client.groups)
        and set(rule.destinations.groups) & set(server.groups)
    ]
    assert matching == ["2000"]
    assert sum(pair.source == 0 for pair in pairs(2000)) > 1
    assert sum(pair.destination == 1 for pair in pairs(2000)) > 1
    assert set(USED_PORTS) < set(PORTS)
