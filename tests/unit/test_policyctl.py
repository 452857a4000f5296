"""What vsfwctl prints of what a manager answers."""

import json
from typing import Any, cast

import pytest

from vsfwd.policyctl import Way, show, show_left_out, take
from vsfwd.rest import Denied, Rest

NASTY = "a\rb\u202ec\x07"
SHOWN = "a\ufffdb\ufffdc\ufffd"


def test_what_others_wrote_does_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, values, names of fields: whoever wrote the policy, or the export, chose them."""
    show([{"path": f"/{NASTY}", "before": None, "after": {"description": NASTY}}], True)
    show_left_out({"metadata": {NASTY: 1}, "left_out": [{"path": f"/{NASTY}", "what": NASTY, "why": NASTY}]})
    said = capsys.readouterr().out
    assert all(letter.isprintable() for letter in said.replace("\n", ""))
    assert f"+ /{SHOWN}\n" in said
    assert f"of no account here: {SHOWN} 1\n" in said
    assert f"left out  /{SHOWN}  {SHOWN}  {SHOWN}\n" in said


class _Refusing:
    def call(self, *_: Any, **__: Any) -> Any:
        raise Denied("rules.0.colour: unknown field")


def test_a_script_is_told_that_the_manager_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """With the same keys as any other outcome, also where there is nothing to compare."""
    way = Way(dry_run=True, exit_code=False, diff=False, confirm=None, yes=False, as_json=True)
    with pytest.raises(Denied):
        take(cast(Rest, _Refusing()), way, "PUT", "/policy", {})
    assert json.loads(capsys.readouterr().out) == {
        "outcome": "refused",
        "confirm_within": None,
        "results": [],
        "refused": "rules.0.colour: unknown field",
    }
