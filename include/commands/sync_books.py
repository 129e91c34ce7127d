"""`stratum sync`: reading back what the CRM holds, and saving, restoring and rebuilding the books."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

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
from include.commands.sync import Target, sync_app, target_named
from include.errors import StratumError
from include.settings import get_settings

Force = Annotated[bool, typer.Option("--force", help="Also over a ledger that was changed after the backup.")]


@sync_app.command("reconcile")
def sync_reconcile(
    target: Target = None,
    sample: Annotated[
        int | None, typer.Option(help="Records to read; as sync.yml says if not given.", min=1)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Read every record.")] = False,
    heal: Annotated[
        bool,
        typer.Option("--heal", help="Let the next sync tell again what drifted, whatever the policy says."),
    ] = False,
    limit: Annotated[int, typer.Option(help="Differences to show.", min=0)] = 20,
    sources: SourcesFile = None,
    as_json: AsJson = False,
) -> None:
    """Read back what the CRM confirmed and list what it no longer holds; nothing is sent."""
    from include.sync.reconcile import reconcile

    if sample is not None and everything:
        raise StratumError("Give --sample or --all, not both.")
    _, parsed = read_sources(get_settings(), sources, need_files=False)
    name = target_named(parsed, target)
    reach_sandbox(parsed, name)
    with warehouse(say_aside):
        found = reconcile(parsed, name, sample=sample, everything=everything, heal=heal, limit=limit)
    if as_json:
        say(json.dumps(asdict(found)))
        return
    for each in found.drift:
        say(
            f"{each.done:<9} {each.account_id}  record {each.record_id}  {each.field}: "
            f"told {_shown(each.confirmed)}, holds {_shown(each.held)}"
        )
    differing = sum(records for kinds in found.kinds.values() for records in kinds.values())
    if differing > len(found.drift):
        more = differing - len(found.drift)
        say(f"... and {more:,} more, in sync.drift under reconciliation_id {found.reconciliation_id}")
    for field, kinds in found.kinds.items():
        say(f"{field}: " + ", ".join(f"{records:,} {done}" for done, records in kinds.items()))
    say(
        f"{found.records_read:,} records read = {found.equal:,} equal + {found.drifted:,} drifted + "
        f"{found.gone:,} gone, by the policy {found.policy}"
    )
    if found.unresolved:
        say(
            f"{found.unresolved:,} records were left out: an attempt has no answer. A sync reads them back first."
        )
    if found.healed:
        say(f"The next sync tells {found.healed:,} records again.")
    if found.not_kept:
        say(
            f"The CRM does not keep {', '.join(found.not_kept)}. Has it the field? Then --heal tells it once more."
        )


@sync_app.command("backup")
def sync_backup(
    file: Annotated[Path, typer.Option(help="The file to write.")],
    target: Target = None,
    sources: SourcesFile = None,
) -> None:
    """Write the books of a target (ledger, failures, its switch) into one file."""
    from include.sync.books import backup

    _, parsed = read_sources(get_settings(), sources, need_files=False)
    with warehouse(say_aside):
        saved = backup(parsed, target_named(parsed, target), file)
    say(
        f"{file}: {saved.ledger:,} records of {saved.target}, {saved.failures:,} failures "
        f"({saved.dead_letters:,} dead letters)"
    )


@sync_app.command("restore")
def sync_restore(
    file: Annotated[Path, typer.Option(help="The file `stratum sync backup` wrote.")],
    target: Target = None,
    force: Force = False,
    sources: SourcesFile = None,
) -> None:
    """Put the books of a backup in the place of the present ones."""
    from include.sync.books import restore

    _, parsed = read_sources(get_settings(), sources, need_files=False)
    name = target_named(parsed, target)
    with warehouse(say_aside):
        saved = restore(parsed, name, file, force)
    say(f"{saved.target}: {saved.ledger:,} records and {saved.failures:,} failures restored.")
    say(f"What was told since the backup is not in it: stratum sync reconcile {name} --all --heal")


@sync_app.command("rebuild")
def sync_rebuild(target: Target = None, sources: SourcesFile = None) -> None:
    """Write a lost ledger anew from what the CRM holds; nothing is sent."""
    from include.sync.books import rebuild

    _, parsed = read_sources(get_settings(), sources, need_files=False)
    name = target_named(parsed, target)
    reach_sandbox(parsed, name)
    with warehouse(say_aside):
        done = rebuild(parsed, name)
    say(
        f"{done.target}: {done.known:,} records known = {done.equal:,} hold what is published + {done.differing:,} "
        f"differ + {done.gone:,} are not in the CRM"
    )
    for reason, accounts in done.not_read.items():
        say(f"Not read, since a sync would hold them: {accounts:,} {reason}")
    if done.differing:
        say(
            "The next sync tells those that differ, as far as the rules of sync.yml let it: stratum sync plan"
        )


def _shown(value: str | None) -> str:
    return "nothing" if value is None else value
