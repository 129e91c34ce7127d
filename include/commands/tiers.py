"""`stratum tiers`: where each quarter's tiers are cut, and the way to have them cut anew."""

import json
from typing import Annotated

import typer

from include.commands.common import AsJson, say, say_aside, warehouse
from include.dates import parse_as_of

tiers_app = typer.Typer(no_args_is_help=True, help="Where each quarter's tiers are cut.")


@tiers_app.command("list")
def tiers_list(as_json: AsJson = False) -> None:
    """List the calibrations, the newest first."""
    from include.warehouse.tiers import calibrations

    with warehouse(say_aside):
        found = calibrations()
    if as_json:
        say(json.dumps(found, default=str))
        return
    if not found:
        say("There is no calibration yet. The first build after a quarter's first days makes one.")
        return
    say(
        f"{'quarter':<10}  {'scope':<20} {'accounts':>8}  {'values of':<10}  {'known on':<10}  {'fingerprint':<12}  run"
    )
    for each in found:
        say(
            f"{each['quarter_start']}  {each['scope']:<20} {each['accounts']:>8,}  {each['input_date']}  "
            f"{each['known_until']}  {each['fingerprint'][:12]}  {each['run_id']}"
        )


@tiers_app.command("recalibrate")
def tiers_recalibrate(
    quarter: Annotated[str, typer.Argument(help="First day of the quarter, YYYY-MM-DD.")],
    why: Annotated[str, typer.Option(help="The reason, for the books.")],
) -> None:
    """Have the tiers of a quarter cut anew by the next build of a date in it."""
    from include.warehouse.tiers import recalibrate

    first_day = parse_as_of(quarter)
    with warehouse(say_aside):
        scopes = recalibrate(first_day, why)
    say(f"Took away the calibration for {first_day} ({scopes} scopes). What is published stands.")
    say("The next run makes it anew: stratum run --as-of DATE")
