"""`stratum sources`: what the sources that are configured have."""

import json
from dataclasses import asdict

import typer

from include.commands.common import (
    AsJson,
    SourcesFile,
    reach_sandbox,
    read_sources,
    sandbox_down,
    say,
    say_aside,
)
from include.commands.identities import identities_app
from include.settings import get_settings

sources_app = typer.Typer(
    no_args_is_help=True, help="What the configured sources have, and who is who in them."
)
sources_app.add_typer(identities_app, name="identities")


@sources_app.command("check")
def sources_check(sources: SourcesFile = None, as_json: AsJson = False) -> None:
    """Try each configured source and say what it has; exit code 1 where one fails. Nothing is loaded."""
    from include.local.stack import uses_sandbox
    from include.sources.survey import survey

    _, parsed = read_sources(get_settings(), sources, need_files=False)
    reach_sandbox(parsed)
    found = []
    for seen in survey(parsed):
        found.append(seen)
        if as_json:
            continue
        where = f"{seen.source + '.' + seen.entity:<22} {seen.place}"
        if seen.fault is not None:
            say(f"FAIL  {where}: {seen.fault}")
            continue
        parts = [] if seen.rows is None else [f"{seen.rows:,} rows"]
        if seen.newest:
            parts.append(f"newest {seen.newest}")
        if seen.not_mapped:
            parts.append(f"not mapped: {', '.join(seen.not_mapped)}")
        say(f"OK    {where}: {'; '.join([*parts, *([seen.note] if seen.note else [])]) or 'within reach'}")
    if as_json:
        say(json.dumps([asdict(seen) | {"is_reachable": seen.is_reachable} for seen in found]))
    elif not found:
        say("The sources name nothing to check: no orders, behavior, records, crm or sync.")
    if not all(seen.is_reachable for seen in found):
        if uses_sandbox(parsed) and (down := sandbox_down()):
            say_aside(down)
        raise typer.Exit(1)
