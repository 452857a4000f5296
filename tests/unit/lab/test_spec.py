"""The options of `lab up`: what they mean, and what is refused with the reason named."""

import pytest

from vagrant.lab.spec import BadSpec, Default, Segment, Spec, Tag, Vm, parse, parse_tag


def test_a_vm_says_where_it_runs_what_it_is_and_what_it_hangs_on() -> None:
    """All parts of --vm at once."""
    spec = parse(vms=["web@host2#tier|web,linux+blue"], segments=["blue=77"])
    assert spec.vms == (Vm("web", "host2", (Tag("tier", "web"), Tag("", "linux")), "blue"),)


def test_vms_that_do_not_say_are_dealt_out() -> None:
    """Host after host, no tag, the default segment."""
    spec = parse(hosts=2, vms=["a", "b", "c"])
    assert spec.vms == (Vm("a", "host1"), Vm("b", "host2"), Vm("c", "host1"))


def test_a_bare_lab() -> None:
    """Two hosts, the default segment, default rule drop."""
    assert parse() == Spec(("host1", "host2"), (), (Segment("default", 5000),), {}, {}, Default.DROP)


def test_clusters_and_datacenters() -> None:
    """Members by name."""
    spec = parse(hosts=3, clusters=["c1=host1,host2", "c2=host3", "empty="], datacenters=["dc=c1,c2"])
    assert spec.clusters == {"c1": ("host1", "host2"), "c2": ("host3",), "empty": ()}
    assert spec.datacenters == {"dc": ("c1", "c2")}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"hosts": 0}, "--hosts 0"),
        ({"hosts": 65}, "--hosts 65"),
        ({"vms": [""]}, "name ''"),
        ({"vms": ["a/b"]}, "'a/b'"),
        ({"vms": ["-a"]}, "'-a'"),
        ({"vms": ["web\n"]}, "name"),
        ({"vms": ["fifteen-letters"]}, "1 to 14"),
        ({"vms": ["a+default#t"]}, "NAME[@HOST][#tag,tag][+segment]"),
        ({"vms": ["a", "a"]}, "VM 'a' already"),
        ({"vms": ["a@host3"]}, "no host 'host3'"),
        ({"vms": ["a@"]}, "no host ''"),
        ({"vms": ["a#"]}, "tag ''"),
        ({"vms": ["a#x,,y"]}, "tag ''"),
        ({"vms": ["a#|x"]}, "tag '|x'"),
        ({"vms": ["a#x|"]}, "tag 'x|'"),
        ({"vms": ["a#x|y|z"]}, "tag 'x|y|z'"),
        ({"vms": ["a#" + "t" * 257]}, "256"),
        ({"vms": ["a#x\x07"]}, "printed"),
        ({"vms": ["a#" + ",".join("t" * 31)]}, "31 tags"),
        ({"vms": ["a+red"]}, "no segment 'red'"),
        ({"vms": [f"v{n}" for n in range(201)]}, "at most 200"),
        ({"segments": ["thirteen-long=1"]}, "1 to 12"),
        ({"segments": ["red"]}, "VNI"),
        ({"segments": ["red=0"]}, "VNI"),
        ({"segments": ["red=16777216"]}, "VNI"),
        ({"segments": ["red=²"]}, "VNI"),
        ({"segments": ["red=5000"]}, "VNI 5000 is taken"),
        ({"segments": ["red=4095"], "transport": "vlan"}, "a VLAN id is a number from 1 to 4094"),
        ({"segments": ["red=100"], "transport": "vlan"}, "VLAN id 100 is taken"),
        ({"segments": ["default=7"]}, "'default' already"),
        ({"clusters": ["c=host9"]}, "no host 'host9'"),
        ({"clusters": ["c=host1,"]}, "no host ''"),
        ({"clusters": ["c=host1", "c=host2"]}, "'c' is there already"),
        ({"clusters": ["c=host1", "d=host1"]}, "'host1' is a member already"),
        ({"datacenters": ["dc=c"]}, "no cluster 'c', there are none"),
    ],
)
def test_what_cannot_be_built_is_named(options: dict, named: str) -> None:
    """One sentence, with the option as it was typed."""
    with pytest.raises(BadSpec) as refused:
        parse(**options)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value).replace("web\n", "")


def test_a_tag_is_written_as_it_is_read() -> None:
    """scope|tag, or tag alone."""
    for text in ("tier|web", "linux"):
        assert str(parse_tag(text)) == text
