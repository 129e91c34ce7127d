"""`stratum lists`: who is to be called, visited, written to or rewarded, as it is published."""

import json
from typing import Annotated, Any

import typer

from include.commands.common import AsJson, say, say_aside, warehouse


def lists(
    name: Annotated[str | None, typer.Argument(help="A list; if not given, all of them, counted.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the published operating lists, or the rows of one."""
    from include.warehouse.lists import list_counts, one_list

    with warehouse(say_aside):
        head, found = one_list(name) if name else (None, list_counts())
    if as_json:
        say(json.dumps(found, default=str))
    elif head is None:
        _show_counts(found)
    else:
        _show_rows(head, found)


def _show_counts(counts: list[dict[str, Any]]) -> None:
    for each in counts:
        due = f"first due {each['first_due']}" if each["first_due"] else ""
        what = f"  ({each['amount_is']})" if each["amount"] is not None and each["amount_is"] else ""
        say(f"{each['list']:<24}{each['rows']:>8,}{_amount(each)}  {due}{what}")


def _show_rows(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    said = list(dict.fromkeys(each["amount_is"] for each in rows or [head] if each["amount_is"]))
    what = f"; the amount is: {said[0]}" if len(said) == 1 else ""
    say(f"{head['list']}: {head['rows']:,} rows{what}")
    # Of one list the amounts may be of several kinds, as where a model speaks of some accounts and rules of others.
    kinds = {each: f"({place})" for place, each in enumerate(said, start=1)} if len(said) > 1 else {}
    for each, mark in kinds.items():
        say(f"amounts marked {mark}: {each}")
    for row in rows:
        who = f"{row['account_name']} ({row['account_id']})" if row["account_name"] else row["account_id"]
        mail = "" if row["can_be_mailed"] is not False else "  [must not be mailed]"
        mark = f" {kinds[row['amount_is']]}" if row["amount_is"] in kinds else ""
        say(f"{row['due_date']}{_amount(row)}{mark}  {row['owner_role']}: {who}. {row['reason']}{mail}")


def _amount(row: dict[str, Any]) -> str:
    """Return a row's amount with its currency, in a column of 20."""
    text = "" if row["amount"] is None else f"{row['amount']:,.2f} {row['currency']}"
    return f"{text:>20}"
