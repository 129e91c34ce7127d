"""What a model card tells of the time since: how far a model's runs lay from its training, and what came true of them."""

from collections.abc import Mapping, Sequence
from datetime import date

import psycopg

from ml.card_parts import drawing, folded, note, number, table

Series = Mapping[str, Mapping[str, Sequence[tuple[date, float]]]]
"""Of each panel its lines, of each line its points, oldest first."""

DRIFT, OUTCOMES = "PSI against training", "told and come true"


def watched(connection: psycopg.Connection, model_id: str) -> Series:
    """Return the drift of the newest date of each month that a model scored, and the month-ends whose outcomes are known.

    Of a date that was run several times the farthest is told.
    """
    drift = connection.execute(
        "select max(as_of_date), (array_agg(score order by as_of_date desc))[1], "
        "(array_agg(feature order by as_of_date desc))[1] from ("
        "select as_of_date, max(psi) filter (where subject = 'score') as score, "
        "max(psi) filter (where subject = 'feature') as feature from ml.drift "
        "where model_id = %s and reference = 'training' group by as_of_date) as days "
        "where score is not null and feature is not null group by date_trunc('month', as_of_date) order by 1",
        [model_id],
    ).fetchall()
    outcomes = connection.execute(
        "select as_of_date, max(mean_probability), max(observed_rate) from ml.calibration_drift "
        "where model_id = %s and part = 0 group by as_of_date order by 1",
        [model_id],
    ).fetchall()
    found: dict[str, dict[str, list[tuple[date, float]]]] = {}
    if drift:
        found[DRIFT] = {
            "scores": [(day, score) for day, score, _ in drift],
            "farthest feature": [(day, feature) for day, _, feature in drift],
        }
    if outcomes:
        found[OUTCOMES] = {
            "told": [(day, told) for day, told, _ in outcomes],
            "came true": [(day, true) for day, _, true in outcomes],
        }
    return found


def since(series: Series, drawn: Mapping[str, str]) -> list[str]:
    """Return the part of the card: the plot of the series, and its points as a table."""
    told = ["<h2>Since it was trained</h2>"]
    if not series:
        return [
            *told,
            "<p class=note>It has scored no date yet whose drift was measured; <code>stratum models report MODEL_ID --html "
            "PATH</code> writes this page anew with what has been watched by then.</p>",
        ]
    rows = [
        (title, name, day, number(value))
        for title, lines in series.items()
        for name, points in lines.items()
        for day, value in points
    ]
    return [
        *told,
        "<p>How far what it saw and told lay from its training (population stability index; 0.1 asks for a look, 0.25 is a "
        "shift), on the newest date of each month; and of the month-ends whose outcomes are known what was told and what "
        "came true.</p>",
        drawing(drawn, "watched"),
        note("cut"),
        folded("The points", table(("", "", "date", "value"), rows)),
    ]
