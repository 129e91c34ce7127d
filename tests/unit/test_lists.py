"""`stratum lists` says of each amount what it is."""

from datetime import date

import pytest

from include.commands.lists import _show_rows

DAY = date(2026, 6, 30)


def test_amounts_of_several_kinds_are_marked_in_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "account_name": None,
        "can_be_mailed": True,
        "due_date": DAY,
        "owner_role": "sales",
        "reason": "Why.",
    }
    kinds = ("times its probability", "all of it", "times its probability")
    rows = [
        row | {"account_id": f"A{place}", "amount": place, "currency": "CNY", "amount_is": kind}
        for place, kind in enumerate(kinds)
    ]
    _show_rows({"list": "churn risk", "rows": 3, "amount_is": None}, rows)
    head, first, second, *told = capsys.readouterr().out.splitlines()
    assert head == "churn risk: 3 rows"
    assert (first, second) == ("amounts marked (1): times its probability", "amounts marked (2): all of it")
    assert [mark for line in told for mark in ("(1)", "(2)") if mark in line] == ["(1)", "(2)", "(1)"]
