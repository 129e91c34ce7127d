"""`stratum sync`: what the CRM would be told, and what it refused."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from include.commands.common import AsJson, SourcesFile, read_sources, say, warehouse
from include.errors import StratumError
from include.settings import get_settings
from include.sources.config import Sources

Target = Annotated[
    str | None, typer.Argument(help="A target of sync.yml; may be left out where it is the only one.")
]

sync_app = typer.Typer(no_args_is_help=True, help="What the CRM would be told, and what it refused.")


@sync_app.command("plan")
def sync_plan(
    target: Target = None,
    sources: SourcesFile = None,
    limit: Annotated[int, typer.Option(help="Records to show.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what a sync of the published set would send, old value and new; no call is made."""
    from include.sync.run import plan_sync
    from include.warehouse.publish import list_runs

    _, parsed = read_sources(get_settings(), sources)
    with warehouse():
        current = next((run for run in list_runs() if run.is_current), None)
        if current is None:
            raise StratumError("Nothing is published yet. Run a date first: stratum run --as-of DATE")
        plan = plan_sync(parsed, current.as_of, _named(parsed, target))
    if as_json:
        say(json.dumps(asdict(plan), default=str))
        return
    for change in plan.changes[:limit]:
        fields = (
            f"{name}: {change.old.get(name, '(not told yet)')} → {new}" for name, new in change.values.items()
        )
        say(f"{change.account_id}  record {change.record_id}  " + ", ".join(fields))
    held = ", ".join(f"{rows} {reason}" for reason, rows in plan.held_reasons.items())
    say(
        f"{plan.queried:,} queried = {len(plan.changes):,} to send + {plan.unchanged:,} unchanged + "
        f"{len(plan.held):,} held" + (f" ({held})" if held else "")
    )
    if plan.unresolved:
        say(f"{plan.unresolved:,} records have an attempt without an answer; a sync reads them back first.")


@sync_app.command("setup")
def sync_setup(target: Target = None, sources: SourcesFile = None) -> None:
    """Make the fields of the mapping that the CRM lacks, and say which a person must make."""
    from include.sync.run import set_up_target

    _, parsed = read_sources(get_settings(), sources)
    name = _named(parsed, target)
    with warehouse():
        done = set_up_target(parsed, name)
    for field in done.made:
        say(f"made        {field}")
    for field, how in done.by_hand.items():
        say(f"not made    {field}: {how}")
    say(
        f"{name}: {len(done.made)} of {len(parsed.sync[name].fields)} fields made, {len(done.by_hand)} to be made by hand"
    )
    if done.by_hand:
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
        rows = replay_dead_letters(parsed, _named(parsed, target), record)
    say(f"{rows:,} dead letters will be sent again by the next sync.")


def _named(sources: Sources, target: str | None) -> str:
    """Return the target that is meant. Raises StratumError where none or several could be."""
    if target is None and len(sources.sync) == 1:
        return next(iter(sources.sync))
    if target is None and not sources.sync:
        raise StratumError("The sources name no sync file, so there is no target.")
    if target is None:
        raise StratumError(f"Say which target is meant: {', '.join(sources.sync)}.")
    return target
