"""`stratum models`: the fitted models, and how good a frozen one proved."""

import json
from typing import Annotated

import typer

from include.commands.common import AsJson, say, say_aside, warehouse
from include.dates import parse_as_of

models_app = typer.Typer(no_args_is_help=True, help="The fitted models, and how good they proved.")


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models, the newest first."""
    with warehouse(say_aside):
        from ml.report import list_models, model_lines

        models = list_models()
    if as_json:
        say(json.dumps(models, default=str))
        return
    for line in model_lines(models):
        say(line)


@models_app.command("report")
def models_report(
    on: Annotated[
        str,
        typer.Option(
            "--evaluate",
            metavar="DATE",
            help="Judge on what came true by the end of this day, loaded and built.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The id of a model; if not given, the newest one that could foretell that day."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a frozen model on labels that came true since, beside simpler ways to tell churn."""
    day = parse_as_of(on)
    with warehouse(say_aside):
        from ml.report import as_plain, evaluate, lines

        report = evaluate("churn", day, model)
    if as_json:
        say(json.dumps(as_plain(report), default=str))
        return
    for line in lines(report):
        say(line)
