"""`stratum sources identities`: which id is which account, what is open, and the decisions that correct it."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from include.commands.common import AsJson, say, say_aside, warehouse
from include.dates import parse_as_of

if TYPE_CHECKING:
    from include.sources.identities import Identities

identities_app = typer.Typer(
    invoke_without_command=True, help="Which id is which account, what is open, and the way to correct it."
)
System = Annotated[
    str, typer.Argument(help="The system: orders, behavior, hubspot, salesforce, bottlecrm, files.")
]
Id = Annotated[str, typer.Argument(help="The system's own id.")]
Account = Annotated[str, typer.Argument(help="The account: a customer number, or <system>:<record id>.")]
Why = Annotated[str, typer.Option(help="The reason, for the books.")]


@identities_app.callback()
def identities_show(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Of the open ones only this kind, such as doubled_number.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many open ones at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show which ids are accounts by which rule, what is decided, and what is open."""
    if context.invoked_subcommand is not None:
        return
    from include.sources.identities import show_identities

    with warehouse(say_aside):
        found = show_identities(kind, limit)
    say(
        json.dumps(asdict(found), default=str, ensure_ascii=False)
        if as_json
        else "\n".join(in_lines(found, kind))
    )


@identities_app.command("link")
def identities_link(
    system: System,
    source_id: Id,
    to: Annotated[str, typer.Option(help="The account it is.")],
    why: Why,
) -> None:
    """Say that an id is an account, on every date."""
    from include.sources.identities import link

    with warehouse(say_aside):
        tell(link(system, source_id, to, why))


@identities_app.command("separate")
def identities_separate(system: System, source_id: Id, why: Why) -> None:
    """Say that an id is an account of its own, whatever its number, a rule or a source's merge says."""
    from include.sources.identities import separate

    with warehouse(say_aside):
        tell(separate(system, source_id, why))


@identities_app.command("merge")
def identities_merge(
    account: Account,
    into: Annotated[str, typer.Option(help="The account that remains.")],
    since: Annotated[str, typer.Option("--from", help="The first day on which the two are one.")],
    why: Why,
) -> None:
    """Say that an account is part of another from a date on."""
    from include.sources.identities import merge

    day = parse_as_of(since)
    with warehouse(say_aside):
        tell(merge(account, into, day, why))


@identities_app.command("exclude")
def identities_exclude(
    account: Account,
    why: Why,
    since: Annotated[str | None, typer.Option("--from", help="The first day; always, if not given.")] = None,
) -> None:
    """Say that an account is the company's own or a test: it is in no tier, score or published table."""
    from include.sources.identities import exclude

    day = parse_as_of(since) if since else None
    with warehouse(say_aside):
        tell(exclude(account, why, day))


@identities_app.command("undo")
def identities_undo(
    decision_id: Annotated[int, typer.Argument(help="The decision, by its number.")], why: Why
) -> None:
    """Take a decision back."""
    from include.sources.identities import undo

    with warehouse(say_aside):
        tell(undo(decision_id, why))


def tell(decision_id: int) -> None:
    """Say that a decision stands, and from when on it is seen."""
    say(
        f"Decision {decision_id} is written down. The next build takes it up. What is published "
        "changes when its date is run again (`stratum publish list` names it): stratum run --as-of DATE"
    )


def in_lines(found: "Identities", kind: str | None) -> list[str]:
    """Return what is known and open as lines for a terminal."""
    shown = ["Ids by system and rule:"]
    shown += [
        f"  {each['source_system']:<12}{each['matched_by']:<16}{each['ids']:>10,}" for each in found.counts
    ]
    if found.not_in_crm:
        shown.append(f"  {found.not_in_crm:,} customers of the orders are in no CRM; the sync holds them.")
    if found.excluded:
        shown.append(f"Excluded accounts: {len(found.excluded):,}")
        shown += [
            f"  {each['account_id']} ({each['internal_by']}{', since ' + str(each['since']) if each['since'] else ''})"
            for each in found.excluded[:10]
        ]
        if len(found.excluded) > 10:
            shown.append(f"  and {len(found.excluded) - 10:,} more (--json lists them)")
    if found.decisions:
        shown.append("Decisions in force:")
        shown += [f"  {decision_in_words(each)}" for each in found.decisions]
    if not found.open_counts:
        return [*shown, "Nothing is open."]
    shown.append("Open:")
    shown += [f"  {each['state']:<15}{each['kind']:<24}{each['ids']:>9,}" for each in found.open_counts]
    for each in found.open:
        candidates = f" [{each['candidate_ids']}]" if each["candidate_ids"] else ""
        shown.append(
            f"{each['kind']}: {each['source_system']} {each['source_account_id']} (account {each['account_id']}): "
            f"{each['evidence']}{candidates}"
        )
    every = sum(each["ids"] for each in found.open_counts if kind in (None, each["kind"], each["state"]))
    if every > len(found.open):
        shown.append(f"{every - len(found.open):,} more are open: --limit N shows more, --kind fewer.")
    return shown


def decision_in_words(decision: dict) -> str:
    """Return a decision as one line."""
    what = {
        "link": "{source_system} {source_account_id} is {account_id}",
        "separate": "{source_system} {source_account_id} is an account of its own",
        "merge": "{account_id} is part of {into_account_id} from {effective_from} on",
        "exclude": "{account_id} is excluded",
    }[decision["action"]].format(**decision)
    if decision["action"] == "exclude" and decision["effective_from"]:
        what += f" from {decision['effective_from']} on"
    when = decision["decided_at"].date()
    return f"{decision['decision_id']}: {what} ({decision['decided_by']}, {when}: {decision['why']})"
