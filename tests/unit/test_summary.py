"""What a run did, as lines: what is off its target, what is held, and what a person can do about it."""

from datetime import date
from typing import Any

from include.local.summary import lines

QUIET: dict[str, Any] = {
    "as_of_date": date(2026, 1, 4),
    "run_id": "20260104_6e878768",
    "is_newest": True,
    "loads": [],
    "tiers": [],
    "company": [],
    "gates": [],
    "scores": None,
    "other_scores": [],
    "at_risk": [],
    "lists": [],
    "syncs": [],
}
HELD = {
    "target": "hubspot:hubspot_sandbox",
    "status": "held",
    "queried": 608,
    "sent": 0,
    "unchanged": 0,
    "failed": 0,
    "held": 608,
    "calls": 0,
    "reasons": {"brake": 600, "not_in_crm": 8},
    "failure": "hold 1 of the sync waits: the first sync would write to 600 records",
    "waiting_hold_id": 1,
}


def told(**what: Any) -> list[str]:
    return lines(QUIET | what)


def test_of_a_held_sync_is_told_what_is_held_why_and_what_sends_it() -> None:
    shown = told(syncs=[HELD])
    assert shown[-3:] == [
        "            8 not_in_crm",
        f"    nothing was sent: {HELD['failure']}",
        "    to send it: stratum sync approve --hold 1 --reason TEXT  (or reject likewise)",
    ]
    answered = told(syncs=[HELD | {"waiting_hold_id": None, "failure": "hold 1 was rejected by anna"}])
    assert answered[-1] == "    nothing was sent: hold 1 was rejected by anna"


def test_of_a_sync_that_broke_off_is_told_why() -> None:
    broken = HELD | {"status": "failed", "sent": 3, "failure": "HubSpot refused", "waiting_hold_id": None}
    assert told(syncs=[broken])[-1] == "    broken off: HubSpot refused"


def test_a_share_off_its_target_is_explained_where_targets_are_shown() -> None:
    tier = {"tier": "C", "accounts": 16, "actual_share": 0.0297}
    meaning = "  A share off its target is no fault: S, A and B were cut by theirs as the quarter began"
    shown = told(tiers=[tier | {"target_share": 0.2, "action": "win-back"}])
    assert [line for line in shown if line.startswith(meaning)]
    assert not [line for line in told(tiers=[tier]) if line.startswith(meaning)]
