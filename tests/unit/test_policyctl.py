"""What vsfwctl prints of what a manager answers."""

import pytest

from vsfwd.policyctl import show, show_left_out

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
