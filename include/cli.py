"""`stratum`, the command line: the same work as the DAGs, through the DAGs."""

import typer

from include.commands import sync_books, sync_holds  # noqa: F401 - they put their commands on sync_app
from include.commands.backfill import backfill
from include.commands.deploy import deploy_app
from include.commands.doctor import doctor
from include.commands.lists import lists
from include.commands.loads import loads_app
from include.commands.models import models_app
from include.commands.psql import psql
from include.commands.publish import publish_app
from include.commands.quarantine import quarantine_app
from include.commands.recommend import recommend_app
from include.commands.run import demo, down, run, up
from include.commands.simulate import simulate
from include.commands.sources import sources_app
from include.commands.status import status, unlock
from include.commands.sync import sync_app
from include.commands.tiers import tiers_app
from include.errors import StratumError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (demo, run, backfill, up, down, status, doctor, unlock, psql, simulate, lists):
    app.command()(command)
app.add_typer(deploy_app, name="deploy")
app.add_typer(loads_app, name="loads")
app.add_typer(models_app, name="models")
app.add_typer(publish_app, name="publish")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(recommend_app, name="recommend")
app.add_typer(sources_app, name="sources")
app.add_typer(sync_app, name="sync")
app.add_typer(tiers_app, name="tiers")


def main() -> None:
    """Run the command line; a fault the user can act on is one line and exit code 1."""
    try:
        app()
    except StratumError as error:
        typer.secho(f"Error: {error}", err=True, fg="red")
        raise SystemExit(1) from None
