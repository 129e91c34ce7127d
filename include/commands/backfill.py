"""`stratum backfill`: many dates into the history, one after the other."""

import json
import time
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

import typer

from include.commands.common import (
    AsJson,
    Say,
    SourcesFile,
    assert_over,
    cut_off,
    read_sources,
    running,
    say,
    say_aside,
)
from include.commands.run import use_sources
from include.dates import parse_as_of
from include.errors import StratumError
from include.settings import get_settings


class Order(StrEnum):
    """In which order the dates are run. The history is the same in any."""

    OLDEST = "oldest"
    NEWEST = "newest"


def backfill(
    first: Annotated[str, typer.Option("--from", help="The first date, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", help="The last date, YYYY-MM-DD.")],
    again: Annotated[
        bool, typer.Option("--again", help="Run the dates that the history holds already, too.")
    ] = False,
    order: Annotated[Order, typer.Option(help="Which date first.")] = Order.OLDEST,
    sources: SourcesFile = None,
    as_json: AsJson = False,
) -> None:
    """Fill the history with past dates, one at a time; stopped, it goes on where it was."""
    span = parse_as_of(first), parse_as_of(last)
    if span[1] < span[0]:
        raise StratumError(f"--to {span[1]} lies before --from {span[0]}.")
    settings = get_settings()
    chosen, parsed = read_sources(settings, sources)
    assert_over(span[1], parsed.company.timezone)
    tell = say_aside if as_json else say
    with running(settings, parsed, tell) as stack:
        use_sources(stack, chosen, parsed)
        done = _fill(stack, span, again, order, tell)
    if as_json:
        say(json.dumps(done, default=str))


def _fill(
    stack: Any, span: tuple[date, date], again: bool, order: Order, tell: Say
) -> list[dict[str, object]]:
    from include.warehouse.backfill import dates_to_fill
    from include.warehouse.lock import in_the_way

    wanted = dates_to_fill(*span, again)
    skipped = (span[1] - span[0]).days + 1 - len(wanted)
    told = f"; {skipped} are in the history or published already and stay" if skipped else ""
    tell(
        f"Backfill of {len(wanted)} date{'' if len(wanted) == 1 else 's'} from {span[0]} to {span[1]}{told}."
    )
    if order is Order.NEWEST:
        wanted.reverse()
    done: list[dict[str, object]] = []
    for place, as_of in enumerate(wanted, start=1):
        started = time.monotonic()
        try:
            if line := in_the_way(as_of):
                tell(line)
            failures = _fill_date(stack, as_of, tell)
        except KeyboardInterrupt:
            tell(
                f"{len(done)} of {len(wanted)} dates done. Give the same command again: it goes on at {as_of}."
            )
            raise
        except StratumError as error:
            why = str(error).rstrip(".")
            raise StratumError(
                f"The backfill stopped at {as_of}, {len(done)} dates done, {len(wanted) - len(done)} left: {why}. "
                "Then give the same command again: it goes on where it was"
                + (", from the first date on, since it says --again." if again else ".")
            ) from error
        for failure in failures:
            tell(f"  {as_of}  {failure}")
        seconds = round(time.monotonic() - started, 1)
        done.append({"as_of_date": as_of, "seconds": seconds})
        tell(f"[{as_of}: {seconds} s, {len(wanted) - place} of {len(wanted)} dates left]")
    return done


def _fill_date(stack: Any, as_of: date, tell: Say) -> list[str]:
    """Run the chain of a date as a backfill, and wait until it is in the history.

    Returns the lines of what failed without ending the chain.
    """
    from include.local.chain import run_chain
    from include.warehouse.backfill import request, withdraw

    api = stack.api()
    request(as_of)
    try:
        return run_chain(
            api, as_of, lambda line: tell(f"  {as_of}  {line.strip()}"), stack.check_alive
        ).failures
    except KeyboardInterrupt:
        if cut_off(stack, as_of, tell):
            withdraw(as_of)
        raise
