"""`stratum models`: the fitted models, and how good a frozen one proved."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from include.commands.common import AsJson, say, say_aside, warehouse
from include.dates import parse_as_of
from include.errors import StratumError

models_app = typer.Typer(no_args_is_help=True, help="The fitted models, and how good they proved.")


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models, the newest first, and what is watched of them."""
    with warehouse(say_aside):
        from ml.drift_report import watch_lines, watched
        from ml.report import list_models, model_lines

        models = list_models()
        watch = watched()
    if as_json:
        say(json.dumps(models, default=str))
        return
    for line in [*model_lines(models), "", "Watched", *watch_lines(watch)]:
        say(line)


@models_app.command("drift")
def models_drift(as_json: AsJson = False) -> None:
    """Tell how far the newest scores and their features lie from training, and whether earlier scores came true."""
    with warehouse(say_aside):
        from ml.drift_report import watch_lines, watched

        models = watched()
    if as_json:
        say(json.dumps(models, default=str))
        return
    for line in watch_lines(models):
        say(line)


@models_app.command("report")
def models_report(
    model_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL_ID]",
            help="Of `stratum models list`; if none is given, the champion of that time.",
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--evaluate",
            metavar="DATE",
            help="Judge on what came true by the end of this day, loaded and built.",
        ),
    ] = None,
    of: Annotated[
        str, typer.Option(help="Which model: churn, lapse, repurchase, upsell or trial.")
    ] = "churn",
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="PATH", help="Write the card of MODEL_ID as a page, its plots beside it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a frozen model on labels that came true since, beside simpler ways to tell; without a date, tell how it did on
    the dates held out from its training."""
    if on is None and model_id is None:
        raise StratumError(
            "Say what to report: MODEL_ID, of `stratum models list`, or --evaluate DATE, or both."
        )
    day = parse_as_of(on) if on is not None else None
    with warehouse(say_aside):
        from ml.report import (
            as_plain,
            evaluate,
            held_out_lines,
            held_out_of,
            held_out_plain,
            lines,
            write_card,
        )

        report = evaluate(of, day, model_id) if day is not None else None
        kept = held_out_of(model_id) if report is None and html is None and model_id else None
        judged = report.model_id if report is not None else model_id
        page = write_card(judged, html) if html is not None and judged is not None else None
    if report is not None and as_json:
        say(json.dumps(as_plain(report), default=str))
    elif report is not None:
        for line in lines(report):
            say(line)
    if kept is not None and as_json:
        say(json.dumps(held_out_plain(kept), default=str))
    elif kept is not None:
        for line in held_out_lines(kept):
            say(line)
    if page is not None:
        (say_aside if as_json else say)(f"Model card: {page.resolve()}")


Reason = Annotated[str, typer.Option("--reason", help="Why, in a few words; it is kept.")]
From = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="From which date on; if not given, the newest one scored."),
]


@models_app.command("promote")
def models_promote(
    model_id: Annotated[str, typer.Argument(metavar="MODEL_ID", help="Of `stratum models list`.")],
    reason: Reason,
    as_of: From = None,
) -> None:
    """Make a model the champion by hand, until the next period begins."""
    day = parse_as_of(as_of) if as_of else None
    with warehouse(say_aside):
        from ml.champion import promote

        row = promote(model_id, reason, day)
    _say_champion(row)


@models_app.command("rollback")
def models_rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="churn, lapse, repurchase, upsell or trial.")],
    reason: Reason,
    as_of: From = None,
) -> None:
    """Go back to the champion before, by hand, until the next period begins."""
    day = parse_as_of(as_of) if as_of else None
    with warehouse(say_aside):
        from ml.champion import rollback

        row = rollback(model, reason, day)
    _say_champion(row)


def _say_champion(row: Any) -> None:
    say(f"Champion from {row.as_of_date} on: {row.champion} (before: {row.champion_before or 'none'}).")
    say("Dates that were scored before keep their scores until they are run again.")
