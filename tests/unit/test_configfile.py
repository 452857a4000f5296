"""How a configuration file is read: keys, lines, the environment, what a running daemon can take."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from vsfwd.configfile import ConfigError, changed, load, sample, setting


class Door(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    width: Annotated[int, setting("Centimetres.", ge=1)]


class House(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    street: Annotated[str, setting("Where it is.", needs="the town says it", example="Elm")]
    rooms: Annotated[int, setting("How many.", reload=True, ge=1, le=9)] = 3
    names: Annotated[tuple[str, ...], setting("Who lives there.", reload=True)] = ("nobody",)
    cellar: Annotated[Path, setting("Where things are kept.")] = Path("/cellar")
    doors: Annotated[dict[str, Door], setting("By name.")] = {}

    def __post_init__(self) -> None:
        if self.street == "none":
            raise ValueError("street: there is no such street")


def read(tmp_path: Path, text: str, **environment: str) -> House:
    (tmp_path / "house.toml").write_text(text)
    return load(House, tmp_path / "house.toml", environment, "HOUSE_", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('street = "Elm"\nroms = 2', ":2: roms: there is no such key; did you mean rooms?"),
        ("rooms = 2", ": street: is missing; the town says it"),
        ('street = "Elm"\n"roms" = 2', ":2: roms: there is no such key; did you mean rooms?"),
        ('street = "Elm"\n[dors]', ":2: dors: there is no such key; did you mean doors?"),
        (
            'street = "Elm"\n[ doors . front ]\nwidth = 0',
            ":3: doors.front.width: must be a whole number, 1 or more",
        ),
        (
            'street = "Elm"\n[doors.front]\nwidth = 5\nrooms = 2',
            ":4: doors.front.rooms: there is no such key",
        ),
        ('street = "Elm"\nrooms = 10', ":2: rooms: must be a whole number from 1 to 9, as 3"),
        ('street = "Elm"\nrooms = true', ":2: rooms: must be a whole number from 1 to 9, as 3"),
        ('street = "Elm"\nnames = ["a", 5]', ':2: names: must be a list of text, as ["nobody"]'),
        ('street = "Elm"\ncellar = 5', ':2: cellar: must be a path, as "/cellar"'),
        ('\nstreet = "none"', ":2: street: there is no such street"),
        (
            'street = "Elm"\n[doors.front]\nwidth = 5\n[doors.back]\nwith = 5\nwidth = 5',
            ":5: doors.back.with: there is no such key; did you mean width?",
        ),
        (
            'street = "Elm"\n[doors.front]\nwidth = 5\n[doors."back"]\nwidth = 0',
            ":5: doors.back.width: must be a whole number, 1 or more",
        ),
        ('street = "Elm"\n[doors.front]', ":2: doors.front.width: is missing; "),
        ('street = "Elm"\ndoors = 5', ":2: doors: must be tables, as {}"),
        ('street = "Elm"\ndoors = {front = 5}', ":2: doors.front: must be a table"),
        ('street = "Elm"\nrooms = x', ":2: Invalid value"),
        ('street = "Elm"\nrooms = 1\nrooms = 2\n', ":3: the key is there already"),
        ('street = "Elm"\nnames = ["a",\n', ":2: Invalid value"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    """And what to do, as far as somebody can know: the key that was meant, who writes the missing one."""
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert str(error.value) == f"{tmp_path}/house.toml{said}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """One that is not there, and one that is no text."""
    with pytest.raises(ConfigError, match=r"none\.toml: No such file or directory; build one"):
        load(House, tmp_path / "none.toml", {}, "HOUSE_", "build one")
    (tmp_path / "house.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"house\.toml: .*utf-8"):
        load(House, tmp_path / "house.toml", {}, "HOUSE_", "")


def test_the_environment_takes_the_place_of_the_file(tmp_path: Path) -> None:
    """Text and paths as they are, all else as in TOML; other variables are nobody's business."""
    house = read(
        tmp_path,
        'street = "Elm"\nrooms = 2',
        HOUSE_STREET="5",
        HOUSE_ROOMS="7",
        HOUSE_NAMES='["a", "b"]',
        HOUSE_CELLAR="/deep",
        HOUSE_DOORS="{front = {width = 80}}",
        HOME="/root",
    )
    assert house == House(
        street="5", rooms=7, names=("a", "b"), cellar=Path("/deep"), doors={"front": Door(width=80)}
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("HOUSE_ROMS", "5", "HOUSE_ROMS: there is no such setting; did you mean HOUSE_ROOMS?"),
        ("HOUSE_ROOMS", "many", "HOUSE_ROOMS: 'many' is not written as in TOML, as in 3"),
        ("HOUSE_ROOMS", "5\nstreet = 1", "HOUSE_ROOMS: '5\\nstreet = 1' is not written as in TOML, as in 3"),
        ("HOUSE_NAMES", "a", "HOUSE_NAMES: 'a' is not written as in TOML, as in '[\"nobody\"]'"),
        ("HOUSE_ROOMS", "10", "HOUSE_ROOMS: must be a whole number from 1 to 9, as 3"),
        ("HOUSE_STREET", "none", "HOUSE_STREET: there is no such street"),
        (
            "HOUSE_DOORS",
            "{front = {width = 0}}",
            "HOUSE_DOORS: front.width: must be a whole number, 1 or more",
        ),
    ],
)
def test_a_mistake_in_the_environment_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    """By the variable; the file is not blamed for it."""
    with pytest.raises(ConfigError) as error:
        read(tmp_path, 'street = "Elm"', **{name: text})
    assert str(error.value) == f"environment: {said}"


def test_all_mistakes_are_told_each_on_a_line(tmp_path: Path) -> None:
    """Those of the environment, what is missing, and what is wrong in the order of the file."""
    text = "roms = 2\nnames = 5\n[doors.front]\nwidth = 0\n[doors.back]\nwith = 5\n"
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text, HOUSE_CELAR="/", HOUSE_ROOMS="10")
    assert str(error.value).replace(f"{tmp_path}/", "").splitlines() == [
        "environment: HOUSE_CELAR: there is no such setting; did you mean HOUSE_CELLAR?",
        "environment: HOUSE_ROOMS: must be a whole number from 1 to 9, as 3",
        "house.toml: street: is missing; the town says it",
        "house.toml:1: roms: there is no such key; did you mean rooms?",
        'house.toml:2: names: must be a list of text, as ["nobody"]',
        "house.toml:4: doors.front.width: must be a whole number, 1 or more",
        "house.toml:5: doors.back.width: is missing; ",
        "house.toml:6: doors.back.with: there is no such key; did you mean width?",
    ]


def test_what_a_running_daemon_can_take_is_told_from_what_needs_a_restart() -> None:
    """Of what is otherwise than it was, and nothing else."""
    old = House(street="Elm")
    new = House(street="Oak", rooms=5, cellar=Path("/cellar"))
    assert changed(old, new) == ({"rooms": 5}, ["street"])
    assert changed(old, old) == ({}, [])


def test_a_sample_has_what_a_setting_is_and_its_default() -> None:
    """Whether it is taken by reload, and where a value comes from that has no default."""
    assert sample(House, "/etc/house.toml", "HOUSE_").split("\n\n")[1:4] == [
        '# Where it is. It has no default: the town says it. Taken at the start.\n#street = "Elm"',
        "# How many. Taken by reload.\n#rooms = 3",
        '# Who lives there. Taken by reload.\n#names = ["nobody"]',
    ]
