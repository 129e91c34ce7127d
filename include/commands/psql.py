"""`stratum psql`: a prompt on the warehouse."""

import os
import subprocess
from typing import Annotated

import typer

from include.commands.common import say, say_aside
from include.errors import StratumError
from include.settings import get_settings
from include.warehouse.connect import ROLES, printable, role_url


def psql(
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "bi_reader",
    command: Annotated[
        list[str] | None, typer.Option("-c", help="Run this and leave; may be given again.")
    ] = None,
) -> None:
    """Open psql on the warehouse, starting the embedded PostgreSQL for as long as it lasts."""
    from include.local.stack import Stack
    from include.warehouse.publish import list_runs

    if role not in ROLES:
        raise StratumError(f"'{role}' is not a role of the warehouse; the roles are {', '.join(ROLES)}.")
    settings = get_settings()
    stack = Stack(settings, say)
    try:
        stack.start_warehouse()
        if role == "bi_reader" and not list_runs():
            say_aside(
                "Nothing is published yet, so there are no tables to read. A run makes them: stratum run --as-of DATE"
            )
        # The published tables are what most come for: they need no schema's name here.
        environment = os.environ | {
            "PGPASSFILE": str(settings.home / "pgpass"),
            "PGOPTIONS": "-c search_path=published,public",
        }
        arguments = [
            "psql",
            printable(role_url(role)),
            *(word for each in command or [] for word in ("-c", each)),
        ]
        done = subprocess.run(arguments, env=environment, check=False)
    except FileNotFoundError as error:
        raise StratumError("psql is not installed: install the PostgreSQL client tools.") from error
    finally:
        stack.down_started()
    raise typer.Exit(done.returncode)
