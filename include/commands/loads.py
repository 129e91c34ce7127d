"""`stratum loads`: what was loaded, and the way a bad load is taken out again."""

import json
from dataclasses import asdict
from datetime import date
from typing import Annotated

import typer

from include.commands.common import AsJson, say, say_aside, warehouse
from include.dates import parse_as_of

loads_app = typer.Typer(no_args_is_help=True, help="What was loaded, and how a bad load is taken out.")


@loads_app.command("list")
def loads_list(
    as_of: Annotated[str | None, typer.Option("--as-of", help="Only the loads of this date.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the loads with their books, the newest first."""
    from include.sources.retract import HEADING, in_words, list_loads

    wanted = parse_as_of(as_of) if as_of else None
    with warehouse(say_aside):
        loads = list_loads(wanted)
    if as_json:
        say(json.dumps(loads, default=str))
        return
    if not loads:
        say(f"Nothing was loaded{f' for {wanted}' if wanted else ''}. Run a date: stratum run --as-of DATE")
        return
    say(HEADING)
    for load in loads:
        say(in_words(load))


@loads_app.command("retract")
def loads_retract(
    load_id: Annotated[str, typer.Argument(help="The load, by its id or the beginning of it.")],
    why: Annotated[str, typer.Option(help="The reason, for the books.")],
    as_json: AsJson = False,
) -> None:
    """Take a load's rows out again; the next build makes what they touched anew."""
    from include.sources.retract import retract

    with warehouse(say_aside):
        done = retract(load_id, why)
    if as_json:
        say(json.dumps(asdict(done), default=str))
        return
    say(
        f"Took {done.rows:,} rows of {done.source}.{done.entity} (load {done.load_id}, as of {done.as_of}) out again."
    )
    for replay in done.replays:
        say(
            f"A replay landed rows it had refused; they stand until: stratum loads retract {replay} --why TEXT"
        )
    say("What is published stands until its dates are made again. Correct the source, then:")
    *older, newest = sorted({*done.dates_to_load, *done.published_dates})
    for first, last in stretches(older):
        say(f"  stratum backfill --from {first} --to {last} --again")
    say(f"  stratum run --as-of {newest}")


@loads_app.command("accept-column")
def loads_accept_column(
    source: Annotated[str, typer.Argument(help="orders or behavior.")],
    entity: Annotated[str, typer.Argument(help="order_lines or events.")],
    column: Annotated[str, typer.Argument(help="The column of the source, as the failed load names it.")],
    new_type: Annotated[str, typer.Argument(help="Its new type, as the failed load names it.")],
    why: Annotated[str, typer.Option(help="The reason, for the books.")],
) -> None:
    """Agree to the new type of a column that the mapping reads; the next load takes it."""
    from include.sources.columns import accept_column

    with warehouse(say_aside):
        accept_column(source, entity, column, new_type, why)
    say(
        f"{source}.{entity} may have {column} as {new_type.upper()} now. Run the date again: stratum run --as-of DATE"
    )


def stretches(dates: list[date]) -> list[tuple[date, date]]:
    """Return the first and the last day of each unbroken stretch of sorted dates."""
    found: list[tuple[date, date]] = []
    for day in dates:
        if found and (day - found[-1][1]).days == 1:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
