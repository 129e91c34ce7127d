"""`stratum sync status`, `approve`, `reject`, `stop` and `start`: what is held, and who may be told."""

import getpass
import json
from typing import Annotated, Any

import typer

from include.commands.common import (
    AsJson,
    SourcesFile,
    phase,
    read_sources,
    running,
    say,
    say_aside,
    warehouse,
)
from include.commands.run import use_sources
from include.commands.sync import Target, sync_app, target_named
from include.errors import StratumError
from include.settings import get_settings

HoldNumber = Annotated[
    int | None, typer.Option("--hold", help="Number of the hold; the target's newest if not given.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for whoever reads it later.")]


@sync_app.command("status")
def sync_status(as_json: AsJson = False, sources: SourcesFile = None) -> None:
    """Show of each target the last run, what is held and why, dead letters, and whether it is switched off."""
    from include.sync.switches import known_targets, status_lines, status_of

    _, parsed = read_sources(get_settings(), sources)
    with warehouse(say_aside):
        configured = [mapping.target for mapping in parsed.sync.values()]
        statuses = [status_of(target) for target in dict.fromkeys([*configured, *known_targets()])]
    if as_json:
        say(json.dumps(statuses, default=str))
        return
    if not statuses:
        say("The sources name no sync file, so there is no target.")
    for status in statuses:
        say("\n".join(status_lines(status)))


@sync_app.command("approve")
def sync_approve(
    reason: Reason, target: Target = None, hold: HoldNumber = None, sources: SourcesFile = None
) -> None:
    """Let a sync be sent that a brake held, and send it; starts what is missing, stops what it started."""
    from include.local.chain import follow_sync
    from include.sync.holds import OPEN, decide, read_hold
    from include.sync.switches import status_lines, status_of

    settings = get_settings()
    chosen, parsed = read_sources(settings, sources)
    with warehouse():
        number = _held(parsed, target, hold)
        is_first = read_hold(number).status == OPEN
        found = decide(number, True, getpass.getuser(), reason)
    if is_first:
        say(f"Approved: {found.subject}.")
    else:
        say(f"{found.subject} was approved by {found.decided_by} already: what is not told yet is sent.")
    with running(settings, parsed, say) as stack:
        use_sources(stack, chosen, parsed)
        api = stack.api()
        with phase("sync", say):
            answered = _answer(api, found, "Approve")
            run_id = answered or api.trigger("sync_crm", found.as_of_date)
            follow_sync(api, run_id, say, stack.check_alive)
        say("\n".join(status_lines(status_of(found.target))))


@sync_app.command("reject")
def sync_reject(
    reason: Reason, target: Target = None, hold: HoldNumber = None, sources: SourcesFile = None
) -> None:
    """Let a sync that a brake held never be sent; a new run of the date asks anew."""
    from include.local import condition
    from include.local.stack import Stack
    from include.sync.holds import decide

    settings = get_settings()
    _, parsed = read_sources(settings, sources)
    with warehouse():
        found = decide(_held(parsed, target, hold), False, getpass.getuser(), reason)
        stack = Stack(settings, say_aside)
        # Where Airflow is down, its task learns of it when it is up again and its own time is over.
        if condition.airflow(stack)["api-server"]["status"] == "healthy":
            _answer(stack.api(), found, "Reject")
    say(f"Rejected: {found.subject}. Nothing is sent of run {found.run_id}.")


@sync_app.command("stop")
def sync_stop(reason: Reason, target: Target = None, sources: SourcesFile = None) -> None:
    """Switch a target off: not even the rest of a running sync is sent."""
    from include.sync.switches import switch_off

    _, parsed = read_sources(get_settings(), sources)
    name = _name(parsed, target)
    with warehouse():
        switch_off(name, getpass.getuser(), reason)
    say(f"{name} is switched off. Switch it on again: stratum sync start")


@sync_app.command("start")
def sync_start(target: Target = None, sources: SourcesFile = None) -> None:
    """Switch a target on again; what was held meanwhile is sent by its next sync."""
    from include.sync.switches import switch_on

    _, parsed = read_sources(get_settings(), sources)
    name = _name(parsed, target)
    with warehouse():
        switch_on(name)
    say(f"{name} is switched on. The next sync tells it what it was not told: stratum run --as-of DATE")


def _name(parsed: Any, target: str | None) -> str:
    """Return the target's name in the books. Raises StratumError where sync.yml has none of that name."""
    from include.sync.run import mapping_of

    return mapping_of(parsed, target_named(parsed, target)).target


def _held(parsed: Any, target: str | None, hold_id: int | None) -> int:
    """Return the number of the hold that is meant. Raises StratumError where it is another target's, or there is none."""
    from include.sync.holds import newest_hold, read_hold

    if hold_id is None:
        return newest_hold(_name(parsed, target)).hold_id
    hold = read_hold(hold_id)
    if target is not None and hold.target != _name(parsed, target):
        raise StratumError(f"Hold {hold_id} is of {hold.target}, not of {target}.")
    return hold_id


def _answer(api: Any, hold: Any, option: str) -> str | None:
    """Give the answer to Airflow's task that waits for it, too, and return its run; None where none waits."""
    waiting = next((each for each in api.questions("sync_crm") if each["subject"] == hold.subject), None)
    if waiting is None:
        return None
    instance = waiting["task_instance"]
    api.answer("sync_crm", instance["dag_run_id"], instance["task_id"], instance["map_index"], option)
    return instance["dag_run_id"]
