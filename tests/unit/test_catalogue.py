"""The tables of attacks, faults and advisories in tests/README.md: what they name is there, and says so."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NOTHING_TO_TEST = ("there is no", "nothing here")
"""What a row begins with that has no test because there is nothing that could have the fault."""


def rows(heading: str) -> dict[str, str]:
    """First and last column of a table."""
    section = (TESTS / "README.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {line[0]: line[-1] for line in lines[2:]}


ATTACKS = rows("Attack catalogue")
BREAKAGES = rows("Fault catalogue")
FAULTS = rows("Faults of others")
RIGHTS = rows("Rights at the broker")


def named(text: str) -> list[str]:
    return re.findall(r"`(\w+/[\w/.:]+)`", text)


def bears(test: str, number: str) -> bool:
    """Whether this test is there, or one of this file bears the number."""
    path, _, name = test.partition("::")
    text = (TESTS / path).read_text()
    if name:
        return f"def {name}(" in text
    return re.search(rf"(?<![0-9a-z]){number}(?![0-9])", text, re.IGNORECASE) is not None


@pytest.mark.parametrize("row", ATTACKS)
def test_a_row_of_attacks_has_its_tests(row: str) -> None:
    """Every file that it names has some that bear its number."""
    tests = named(ATTACKS[row])
    assert tests
    assert [test for test in tests for number in row.split(", ") if not bears(test, number)] == []


def test_every_number_has_its_row() -> None:
    """X1 to X50, each once."""
    assert [int(number[1:]) for row in ATTACKS for number in row.split(", ")] == list(range(1, 51))


@pytest.mark.parametrize("row", BREAKAGES)
def test_a_row_of_faults_has_its_tests(row: str) -> None:
    """As one of attacks."""
    tests = named(BREAKAGES[row])
    assert tests
    assert [test for test in tests for number in row.split(", ") if not bears(test, number)] == []


@pytest.mark.parametrize("row", RIGHTS)
def test_every_attempt_at_the_broker_has_its_test(row: str) -> None:
    """By name."""
    tests = named(RIGHTS[row])
    assert tests
    assert [test for test in tests if "::" not in test or not bears(test, "")] == []


@pytest.mark.parametrize("row", FAULTS)
def test_an_advisory_has_its_tests(row: str) -> None:
    """By its number in a file, by the test's name, or by the row of the attack it is an example of."""
    tests, attacks = named(FAULTS[row]), re.findall(r"X\d+", FAULTS[row])
    assert tests or attacks or FAULTS[row].startswith(NOTHING_TO_TEST)
    known = {number for numbers in ATTACKS for number in numbers.split(", ")}
    assert set(attacks) <= known
    ids = row.partition(" (")[0].split(", ")
    assert [test for test in tests if not any(bears(test, number) for number in ids)] == []
