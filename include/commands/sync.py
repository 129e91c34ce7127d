"""`stratum sync`: what the CRM would be told, and what it refused."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from include.commands.common import (
    AsJson,
    SourcesFile,
    reach_sandbox,
    read_sources,
    say,
    say_aside,
    warehouse,
)
from include.errors import StratumError
from include.settings import get_settings
from include.sources.config import Sources

if TYPE_CHECKING:
    from include.sync.brakes import Reason
    from include.sync.dry_run import DryRun, FieldChange

KIND_WORDS = {
    "first": "told for the first time",
    "changed": "changed",
    "cleared": "cleared",
    "heal": "healed",
    "same": "there already",
    "create": "in a new record",
}
Target = Annotated[
    str | None, typer.Argument(help="A target of sync.yml; may be left out where it is the only one.")
]

sync_app = typer.Typer(no_args_is_help=True, help="What the CRM would be told, and what it refused.")


@sync_app.command("plan")
def sync_plan(
    target: Target = None,
    sources: SourcesFile = None,
    read: Annotated[
        bool, typer.Option("--read", help="Ask the CRM for the present values of what would be told.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Records to show.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what a sync of the published set would send, old value and new; nothing is written."""
    from include.sync.dry_run import plan_sync
    from include.warehouse.publish import list_runs

    _, parsed = read_sources(get_settings(), sources)
    name = target_named(parsed, target)
    reach_sandbox(parsed, name if read else None)
    with warehouse(say_aside if as_json else say):
        current = next((run for run in list_runs() if run.is_current), None)
        if current is None:
            raise StratumError("Nothing is published yet. Run a date first: stratum run --as-of DATE")
        done = plan_sync(parsed, current.as_of, name, read, limit)
    if as_json:
        say(json.dumps(asdict(done), default=str, ensure_ascii=False))
        return
    for line in dry_run_lines(done):
        say(line)


def dry_run_lines(done: "DryRun") -> list[str]:
    """Return a dry run in words: the first records, counts per field and kind, what adds up, what cannot be known."""
    lines = []
    for record in done.records:
        told = ", ".join(_field_words(each) for each in record.fields)
        note = "  account gone or without consent" if record.is_removal else ""
        note += "" if record.is_there else "  the CRM has no such record"
        place = "new record" if record.is_creation else f"record {record.record_id}"
        lines.append(f"{record.account_id}  {place}{note}  {told}")
    if done.changes > len(done.records):
        lines.append(f"... and {done.changes - len(done.records):,} more records")
    for name, kinds in done.kinds.items():
        lines.append(f"{name}: " + ", ".join(f"{rows:,} {KIND_WORDS[kind]}" for kind, rows in kinds.items()))
    held = ", ".join(f"{rows:,} {reason}" for reason, rows in done.held.items())
    lines.append(
        f"{done.queried:,} queried = {done.changes:,} to send + {done.unchanged:,} unchanged + "
        f"{sum(done.held.values()):,} held" + (f" ({held})" if held else "")
    )
    if done.creations:
        lines.append(f"{done.creations:,} of them make a record: the CRM has none of the account.")
    if done.removals:
        lines.append(
            f"{done.removals:,} of them clear what was told of accounts that are gone or without consent."
        )
    if done.was_read:
        lines.append(
            f"Of the fields to send, {done.drifted:,} hold another value than the CRM last confirmed."
        )
    lines += [_brake_words(each) for each in done.brakes]
    lines += [f"Cannot know {each}." for each in done.cannot_know]
    if done.unresolved:
        lines.append(
            f"{done.unresolved:,} records have an attempt without an answer; a sync reads them back first."
        )
    return lines


def _brake_words(brake: "Reason") -> str:
    verdict = "would hold" if brake.holds else "off" if brake.figure is None else "passes"
    return f"brake {brake.brake}: {verdict}  {brake.says}"


def _field_words(change: "FieldChange") -> str:
    if change.kind == "create":
        return f"{change.name}: {change.new}"
    known = change.old or "(empty)"
    old = "(cannot know)" if change.known == "no" else known
    new = "(empty)" if change.new is None else change.new
    notes = ["already there"] if change.kind == "same" else []
    notes += ["edited there"] if change.has_drifted else []
    notes += ["drifted"] if change.kind == "heal" else []
    return f"{change.name}: {old} → {new}" + (f" ({', '.join(notes)})" if notes else "")


@sync_app.command("setup")
def sync_setup(target: Target = None, sources: SourcesFile = None) -> None:
    """Make the fields of the mapping that the CRM lacks, and say which a person must make."""
    from include.sync.run import set_up_target

    _, parsed = read_sources(get_settings(), sources)
    name = target_named(parsed, target)
    reach_sandbox(parsed, name)
    with warehouse():
        done = set_up_target(parsed, name)
    for field in done.made:
        say(f"made        {field}")
    for field, how in done.by_hand.items():
        say(f"not made    {field}: {how}")
    for field, why in done.unfit.items():
        say(f"unfit       {field}: {why}")
    if done.note:
        say(f"{name}: {done.note}")
        return
    told = parsed.sync[name].columns | parsed.sync[name].columns_at_creation
    lacking = done.by_hand.keys() | done.unfit.keys()
    there = told.keys() - lacking - set(done.made)
    say(
        f"{name}: {len(told)} fields = {len(there)} already there + {len(done.made)} made now + "
        f"{len(lacking)} to be made by hand"
    )
    if done.by_hand or done.unfit:
        raise StratumError(
            "Make these fields in the CRM, or take them out of sync.yml, then run setup again."
        )


@sync_app.command("replay")
def sync_replay(
    target: Target = None,
    record: Annotated[
        list[str] | None, typer.Option(help="A CRM record id; all dead letters if none.")
    ] = None,
    sources: SourcesFile = None,
) -> None:
    """Let the next sync send dead letters again."""
    from include.sync.run import replay_dead_letters

    _, parsed = read_sources(get_settings(), sources)
    with warehouse():
        rows = replay_dead_letters(parsed, target_named(parsed, target), record)
    say(f"{rows:,} dead letters will be sent again by the next sync.")


def target_named(sources: Sources, target: str | None) -> str:
    """Return the target that is meant. Raises StratumError where none or several could be."""
    if target is None and len(sources.sync) == 1:
        return next(iter(sources.sync))
    if target is None and not sources.sync:
        raise StratumError("The sources name no sync file, so there is no target.")
    if target is None:
        raise StratumError(f"Say which target is meant: {', '.join(sources.sync)}.")
    return target
