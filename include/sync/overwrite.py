"""What the CRM holds decides: overwrite rules, and what may be cleared of accounts that are gone."""

from include.sync.asking import asking
from include.sync.mapping import SyncMapping
from include.sync.plan import Change, Plan
from include.sync.target import Target

Shown = dict[str, str | None]
"""Field → the CRM's present value of one record."""


def apply_overwrite_rules(target: Target, plan: Plan, mapping: SyncMapping) -> None:
    """Take out of the plan what may not be overwritten; a row of which nothing is left is held, with its reason.

    - `if_empty`: only an empty field is written. `if_ours`: only one that holds what it confirmed to us, or is empty and
      was never told. A field that already holds the new value may be told it by any rule.
    - Of an account that is gone, only values that are still ours are cleared.

    Only the records concerned are read. A target that cannot be read has no such rules, and clears what it was told.
    A record that is not found is left to the CRM's own answer; where it is to be cleared, it is gone.
    Raises StratumError or TransientError where the CRM cannot be read.
    """
    rules: dict[str, str] = {
        name: rule.overwrite for name, rule in mapping.fields.items() if rule.overwrite != "always"
    }
    if not target.can_read or not (rules or plan.removals):
        return
    for some in plan.changes.chunks():
        asked = [
            (number, change)
            for number, change in some
            if change.is_removal or (rules.keys() & change.values and not change.by_key)
        ]
        shown = present_values(target, [change for _, change in asked])
        for number, change in asked:
            held = shown.get(change.record_id)
            if held is not None:
                barred = _barred(target, change, held, rules)
                if barred:
                    plan.leave_out(number, change, barred, _reason(change, barred, rules))
            elif change.is_removal:
                plan.leave_out(number, change, list(change.values), "record_is_gone")


def present_values(target: Target, changes: list[Change]) -> dict[str, Shown]:
    """Return record id → the present values of the fields that are to be told, of the records that are there.

    Raises StratumError or TransientError where the CRM does not tell.
    """
    if not changes:
        return {}
    fields = sorted({name for change in changes for name in change.values})
    with asking(target, "what it holds now, and what may be told depends on it", "Nothing was sent."):
        return target.read([change.record_id for change in changes], fields)


def _barred(target: Target, change: Change, held: Shown, rules: dict[str, str]) -> list[str]:
    """Return the fields of a change that may not be written."""
    if change.is_removal:
        return [name for name in change.values if not target.is_same(change.old[name], held.get(name))]
    return [
        name
        for name, new in change.values.items()
        if name in rules
        and not target.is_same(new, held.get(name))
        and not target.is_same(change.old.get(name) if rules[name] == "if_ours" else None, held.get(name))
    ]


def _reason(change: Change, barred: list[str], rules: dict[str, str]) -> str:
    is_empty_rule = not change.is_removal and all(rules[name] == "if_empty" for name in barred)
    return "not_empty" if is_empty_rule else "not_ours"
