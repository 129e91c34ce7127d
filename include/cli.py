"""`stratum`, the command line: the same work as the DAGs, through the DAGs."""

from difflib import get_close_matches
from typing import Any

import typer
from typer._click import Context  # these two have no public name
from typer._click.exceptions import NoSuchOption
from typer.core import TyperGroup

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

LIKE_ENOUGH = 0.7
"""How like the one that is suggested a mistyped option must be (1 is equal): a distant one leads astray."""


class Stratum(TyperGroup):
    """The commands; of a mistyped option what is close to it is suggested."""

    def invoke(self, ctx: Context) -> Any:
        """Run the command. Typer compares with the dashes, which all options share: --asof was like --json to it."""
        try:
            return super().invoke(ctx)
        except NoSuchOption as error:
            names = {name.strip("-"): name for name in error.possibilities or ()}
            typo = error.option_name.strip("-").replace("_", "-")
            error.possibilities = [names[name] for name in get_close_matches(typo, names, cutoff=LIKE_ENOUGH)]
            raise


app = typer.Typer(cls=Stratum, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
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
