"""`stratum publish`: what is published, and its way back."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from include.commands.common import AsJson, say, warehouse

publish_app = typer.Typer(no_args_is_help=True, help="What is published, and its way back.")


@publish_app.command("list")
def publish_list(as_json: AsJson = False) -> None:
    """List the published runs that are kept; the current one is marked."""
    from include.warehouse.publish import list_runs

    with warehouse():
        runs = list_runs()
    if as_json:
        say(json.dumps([asdict(run) for run in runs], default=str))
        return
    if not runs:
        say("Nothing is published yet. Run a date: stratum run --as-of DATE")
    for run in runs:
        mark = "*" if run.is_current else " "
        say(f"{mark} {run.run_id}  as of {run.as_of}  published {run.published_at:%Y-%m-%d %H:%M:%S %Z}")


@publish_app.command("rollback")
def publish_rollback(
    to: Annotated[
        str | None, typer.Option(help="The run to go back to; the one before if not given.")
    ] = None,
) -> None:
    """Let everybody read an earlier published run again."""
    from include.warehouse.publish import rollback

    with warehouse():
        result = rollback(to)
    say(f"Published is now run {result.run_id}, as of {result.as_of}.")
