"""`stratum recommend`: what outside recommenders are given."""

from pathlib import Path
from typing import Annotated

import typer

from include.commands.common import say, say_aside, warehouse

recommend_app = typer.Typer(no_args_is_help=True, help="What outside recommenders are given.")


@recommend_app.callback()
def recommend() -> None:
    """What outside recommenders are given."""


@recommend_app.command("export")
def recommend_export(
    folder: Annotated[Path, typer.Argument(help="Where to write interactions.csv, users.csv and items.csv.")],
) -> None:
    """Write purchases, accounts and products as of the published date, as Amazon Personalize imports them."""
    with warehouse(say_aside):
        from ml.export import export_for_recommenders

        as_of, rows = export_for_recommenders(folder)
    for name, count in rows.items():
        say(f"{folder / name}: {count:,} rows as of {as_of}")
