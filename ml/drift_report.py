"""What is watched of each model, for a reader and for a program: the drift of its newest run, and what came true."""

from dataclasses import fields
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.quality.limits import limits
from include.warehouse.connect import connect
from ml.drift import Drift, told
from ml.realised import Part
from ml.targets import MODELS

_OF_DRIFT = ", ".join(field.name for field in fields(Drift))
_OF_PART = ", ".join(field.name for field in fields(Part))
_ALONE = {
    "churn": ", the warning rules stand alone",
    "lapse": ", the warning rules stand alone",
    "trial": ", the rule of trials stands alone",
}
"""Of the models that rules stand beside, what is left where no model serves."""


def watched() -> list[dict[str, Any]]:
    """Return of each model its newest run: status, drift row by row, and the newest month-end whose window has passed."""
    with connect("scorer") as connection:
        return [_of_model(connection, model) for model in MODELS]


def watch_lines(models: list[dict[str, Any]]) -> list[str]:
    """Return the state of each model as a line of text."""
    return [f"{one['model']}: {_state(one)}" for one in models]


def _of_model(connection: psycopg.Connection, model: str) -> dict[str, Any]:
    cursor = connection.cursor(row_factory=dict_row)
    run = cursor.execute(
        "select run_id, as_of_date, status, reason, model_id from ml.runs where model = %s "
        "order by as_of_date desc, scored_at desc limit 1",
        [model],
    ).fetchone()
    if run is None:
        return {"model": model, "status": None, "drift": [], "calibration": []}
    drift = cursor.execute(
        f"select {_OF_DRIFT} from ml.drift where run_id = %s and model = %s order by subject desc, psi desc, name",  # noqa: S608
        [run["run_id"], model],
    ).fetchall()
    calibration = cursor.execute(
        f"select as_of_date, measured_as_of, {_OF_PART} from ml.calibration_drift as parts where model = %s "  # noqa: S608
        "and run_id = (select run_id from ml.calibration_drift as newest where newest.model = %s "
        "and newest.measured_as_of <= %s order by newest.as_of_date desc, newest.measured_as_of desc limit 1) "
        "order by part",
        [model, model, run["as_of_date"]],
    ).fetchall()
    return {"model": model, **run, "drift": drift, "calibration": calibration}


def _state(one: dict[str, Any]) -> str:
    if one["status"] is None:
        return "nothing is scored yet"
    if one["status"] == "absent":
        return f"as of {one['as_of_date']} no model serves{_ALONE.get(one['model'], '')}: {one['reason']}"
    rows = [Drift(**row) for row in one["drift"]]
    if not rows:
        return f"as of {one['as_of_date']} the drift was not measured"
    moved = sum(row.state == "moved" for row in rows)
    parts = [told(rows) or "nothing has shifted" + (f", {moved} moved" if moved else "")]
    parts += [f"not compared: {reason}" for reason in dict.fromkeys(row.reason for row in rows if row.reason)]
    return f"as of {one['as_of_date']}: " + ". ".join([*parts, _came_true(one)])


def _came_true(one: dict[str, Any]) -> str:
    if not one["calibration"]:
        return "No published month-end's window has passed, so what came true is not known yet"
    whole = one["calibration"][0]
    error = whole["calibration_error"]
    holds = "holds" if error <= limits(one["as_of_date"])["calibration_error"] else "does not hold"
    return (
        f"Of {whole['as_of_date']} {whole['mean_probability']:.1%} was told and {whole['observed_rate']:.1%} "
        f"({whole['low']:.1%} to {whole['high']:.1%}) came true; calibration {holds} (error {error:.3f})"
    )
