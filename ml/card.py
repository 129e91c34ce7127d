"""A model card: one HTML page on one fitted model, from what the warehouse keeps about it, without network or script."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg

from include.warehouse.connect import connect
from ml import plots, registry
from ml.card_beside import (
    beside,
    date_by_date,
    expected_value,
    populations_of,
    value_held_out,
    worth,
    worth_held_out,
)
from ml.card_features import captions, looked_at
from ml.card_parts import (
    drawing,
    exact,
    folded,
    level_told,
    meanings,
    note,
    number,
    ranged,
    shown_percent,
    side_by_side,
    table,
)
from ml.card_watch import Series, since, watched
from ml.champion import Promotion, promotions
from ml.figures import POOLED, SLICES
from ml.frames import currency_of
from ml.judge import ON_DATE, Figure
from ml.phrases import plain_name
from ml.targets import Target, definitions_of
from ml.verdict import Found, value_in_short

STYLE = (Path(__file__).parent / "card.css").read_text()
SMALL = 30
"""Rows of the rarer outcome below which a slice is called small: our default, the usual least for a normal interval."""


@dataclass(frozen=True)
class Facts:
    """What the warehouse knows of a model: its books, its figures by (kind, date), weights, effects, decisions and drift."""

    model: registry.Model
    estimator: str
    code_version: str
    trained_at: str
    figures: Mapping[tuple[str, date], Sequence[Figure]]
    importances: Mapping[str, float]
    effects: Mapping[str, Sequence[tuple[float, float]]]
    promotions: Sequence[Promotion]
    currency: str = "reporting currency"
    watched: Series = field(default_factory=dict)

    def target(self) -> Target | None:
        """Return the definition it foretells; None where this version has none of that name."""
        of_model = definitions_of(self.model.model)
        return next((one for one in of_model if one.definition == self.model.definition), None)

    def held_out(self) -> Found:
        """Return the figures of all held-out dates together and of slices, by population, estimator and metric."""
        figures = self.figures.get(("validation", self.model.window_to), ())
        return {(f.population, f.estimator, f.metric): f for f in figures}

    def dates(self) -> dict[date, Found]:
        """Return the figures of each held-out date alone, oldest first, by population, estimator and metric."""
        return {
            day: {(f.population, f.estimator, f.metric): f for f in figures if f.population == ON_DATE}
            for (kind, day), figures in sorted(self.figures.items())
            if kind == "validation" and any(f.population == ON_DATE for f in figures)
        }

    def months(self, population: str, estimator: str, metric: str) -> list[tuple[date, float]]:
        """Return a monthly validation figure, oldest first."""
        return [
            (day, figure.value)
            for (kind, day), figures in sorted(self.figures.items())
            if kind == "validation"
            for figure in figures
            if (figure.population, figure.estimator, figure.metric) == (population, estimator, metric)
        ]

    def reliability(self) -> list[plots.Ranged]:
        """Return told probability, observed rate and the ends of its interval per bin, from the lowest up."""
        found = self.held_out()
        names = sorted(
            name for population, _, name in found if population == POOLED and name.startswith("reli")
        )
        observed = [found[POOLED, "model", name] for name in names if name.endswith("observed")]
        told = [found[POOLED, "model", name] for name in names if name.endswith("predicted")]
        return [
            (x.value, y.value, _or(y.low, y.value), _or(y.high, y.value))
            for x, y in zip(told, observed, strict=True)
        ]

    def gain(self) -> list[plots.Point]:
        """Return the share of accounts looked at and the share of positives found, from none on."""
        found = [
            (int(name.removeprefix("gain_")) / 100, figure.value)
            for (population, estimator, name), figure in self.held_out().items()
            if (population, estimator) == (POOLED, "model") and name.startswith("gain_")
        ]
        return [(0.0, 0.0), *sorted(found)] if found else []


def write_missing_cards(folder: Path) -> list[Path]:
    """Write the card of each model that has none, `MODEL_ID.html`, and its plots beside it; return the pages.

    So a training that was cut off after a model was kept leaves none without its card for good.
    """
    with connect("scorer") as connection:
        found = registry.all_models(connection)
    pages = {model.model_id: folder / f"{model.model_id}.html" for model in found}
    return [write_card(model_id, page) for model_id, page in pages.items() if not page.exists()]


def write_card(model_id: str, page: Path) -> Path:
    """Write the card of a model as a page, its plots beside it. Raises StratumError where there is no such model."""
    with connect("scorer") as connection:
        facts = facts_of(connection, model_id)
    write(facts, page)
    return page


def write(facts: Facts, page: Path) -> None:
    """Write a card, and each plot as `PAGE-NAME.svg`."""
    page.parent.mkdir(parents=True, exist_ok=True)
    drawn = drawings(facts)
    for name, text in drawn.items():
        page.with_name(f"{page.stem}-{name}.svg").write_text(text, encoding="utf-8")
    page.write_text(render(facts, drawn), encoding="utf-8")


def facts_of(connection: psycopg.Connection, model_id: str) -> Facts:
    """Return what the warehouse knows of a model. Raises StratumError where there is none of that id."""
    found = registry.by_id(connection, model_id)
    books = connection.execute(
        "select estimator, code_version, trained_at::text from ml.models where model_id = %s", [model_id]
    ).fetchone()
    rows = connection.execute(
        "select kind, evaluated_as_of, population, estimator, metric, value, low, high, rows from ml.metrics "
        "where model_id = %s order by kind, evaluated_as_of, population, estimator, metric",
        [model_id],
    ).fetchall()
    figures = {
        key: [Figure(*row[2:]) for row in group] for key, group in groupby(rows, lambda row: (row[0], row[1]))
    }
    weights = connection.execute(
        "select feature, importance from ml.importances where model_id = %s order by importance desc, feature",
        [model_id],
    ).fetchall()
    points = connection.execute(
        "select feature, value, mean_probability from ml.effects where model_id = %s order by feature, value",
        [model_id],
    ).fetchall()
    effects = {name: [row[1:] for row in group] for name, group in groupby(points, lambda row: row[0])}
    ordered = {name: effects[name] for name, _ in weights if name in effects}
    estimator, code_version, trained_at = books if books is not None else ("", "", "")
    decided = [
        row
        for row in promotions(connection, found.model)
        if model_id in (row.champion, row.champion_before, row.challenger)
    ]
    return Facts(
        found,
        estimator,
        code_version,
        trained_at,
        figures,
        dict(weights),
        ordered,
        decided,
        currency_of(connection),
        watched(connection, model_id),
    )


def drawings(facts: Facts) -> dict[str, str]:
    """Return the SVG of each plot there are figures for, by name."""
    drawn: dict[str, str] = {}
    found = facts.held_out()
    if points := facts.reliability():
        drawn["reliability"] = plots.svg(plots.reliability_plot(points), "reliability")
    rate = found.get((POOLED, "observed", f"{facts.model.model}_rate"))
    if rate is not None and (curve := facts.gain()):
        drawn["gain"] = plots.svg(plots.gain_plot(curve, rate.value), "gain")
    if facts.months("all", "model", "auc"):
        drawn["months"] = plots.svg(plots.drift_plot(monthly(facts)), "months")
    if facts.effects:
        called = captions(facts.model, facts.effects, facts.currency)
        drawn["effects"] = plots.svg(plots.effects_plot(facts.effects, called), "effects")
    if facts.watched:
        drawn["watched"] = plots.svg(plots.drift_plot(facts.watched), "watched")
    return drawn


def monthly(facts: Facts) -> dict[str, dict[str, list[tuple[date, float]]]]:
    """Return the monthly validation figures that are drawn: AUC beside recency, Brier, how often it came true."""
    rate = facts.months("all", "observed", f"{facts.model.model}_rate")
    return {
        "AUC": {
            "model": facts.months("all", "model", "auc"),
            "recency alone": facts.months("all", "recency", "auc"),
        },
        "Brier": {"model": facts.months("all", "model", "brier")},
        "share that came true": {"observed": rate},
    }


def render(facts: Facts, drawn: Mapping[str, str]) -> str:
    """Return the page."""
    title = f"Model card: {facts.model.model_id}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        *_summary(facts),
        meanings(),
        *_held_out(facts, drawn),
        *value_held_out(facts.held_out(), facts.dates(), facts.target(), facts.currency),
        *worth_held_out(facts.held_out(), facts.target(), facts.currency),
        *_slices(facts),
        *_evaluations(facts),
        *looked_at(facts.model, facts.importances, facts.effects, facts.target(), facts.currency, drawn),
        *since(facts.watched, drawn),
        *_decisions(facts),
        *_limits(facts),
        *_parameters(facts),
        *_every_figure(facts),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def _summary(facts: Facts) -> list[str]:
    found = facts.model
    target = facts.target()
    rows = [
        ("Foretells", f"{found.definition} in the {found.horizon_days} days after a date"),
        ("Of whom", target.of_whom if target else "told by an earlier version"),
        ("Trained as of", found.trained_as_of),
        ("Learned from", f"the accounts at each month-end of {found.window_from} to {found.window_to}"),
        ("Rows", f"{found.training_rows:,} (accounts × month-ends)"),
        (
            "Came true",
            f"{found.training_positives:,}, {shown_percent(found.training_positives / found.training_rows)}",
        ),
        ("Estimator", facts.estimator),
        ("Setting", found.parameters.get("setting", "the only one")),
        ("Chosen by", found.parameters.get("setting_why", "")),
        ("Level", level_told(found)),
        *(
            []
            if target and target.may_be_empty
            else [("Recent buyers", f"those that ordered in the last {found.active_days} days (policy)")]
        ),
        ("Data fingerprint", found.data_fingerprint),
        ("Artefact sha256", found.artefact_sha256),
        ("Code", facts.code_version),
        ("Trained at", facts.trained_at),
    ]
    return [table((), rows, head_column=True)]


def _held_out(facts: Facts, drawn: Mapping[str, str]) -> list[str]:
    found = facts.held_out()
    told = [
        "<h2>How good it is on dates it knew nothing of</h2>",
        "<p>Each of the newest month-ends was predicted by a copy of the model fitted on the month-ends whose outcomes "
        "were known by then, with the probabilities that could be told then. What stands beside it was fitted on the same "
        "month-ends, BG/NBD on the orders up to the date. In brackets the 95 % interval of a bootstrap over accounts; "
        "differences are paired.</p>",
    ]
    rate = found.get((POOLED, "observed", f"{facts.model.model}_rate"))
    if rate is None:
        told.append(
            "<p class=note>There are no held-out dates with calibrated probabilities: history is too short for "
            "them, or the model was trained before they were kept. The monthly figures below are all there is.</p>"
        )
    else:
        mean = found[POOLED, "model", "mean_probability"]
        told.append(
            f"<p>{rate.rows:,} rows; {ranged(rate, percent=True)} came true, {ranged(mean, percent=True)} was told "
            "on average.</p>"
        )
        for population in populations_of(found):
            if population.startswith(POOLED):
                told += beside(found, population, facts.target())
        told.append(note("error"))
        told += date_by_date(facts.dates())
        told.append(side_by_side(drawn, "reliability", "gain"))
        bins = [
            (number, shown_percent(x), f"{shown_percent(y)} ({shown_percent(low)} to {shown_percent(high)})",
             "yes" if low <= x <= high else "no")
            for number, (x, y, low, high) in enumerate(facts.reliability(), start=1)
        ]  # fmt: skip
        told += [
            "<h3>Calibration</h3>",
            "<p>Equally many rows each, from the lowest probability up.</p>",
            table(("part", "told on average", "came true", "told lies in the interval"), bins),
        ]
    months = monthly(facts)
    days = [day for day, _ in months["AUC"]["model"]]
    if days:
        lines = [(title if len(of) == 1 else f"{title}, {name}", dict(points))
                 for title, of in months.items() for name, points in of.items()]  # fmt: skip
        by_month = [(day, *(number(values.get(day)) for _, values in lines)) for day in days]
        told += [
            "<h3>Month by month</h3>",
            drawing(drawn, "months"),
            note("cut"),
            table(("month-end", *(title for title, _ in lines)), by_month),
            note("blanks"),
        ]
    return told


def _slices(facts: Facts) -> list[str]:
    found = facts.held_out()
    told = [
        "<h2>By tier, industry and size</h2>",
        f"<p>Of the held-out rows. Where fewer than {SMALL} rows are of the rarer outcome, a slice is small: read it with "
        "care, and by its intervals.</p>",
    ]
    rate = f"{facts.model.model}_rate"
    for name in SLICES.values():
        rows = []
        for population in sorted({key[0] for key in found if key[0].startswith(f"{name}: ")}):
            came = found[population, "observed", rate]
            fewer = round(min(came.value, 1 - came.value) * came.rows)
            rows.append(
                (
                    population.removeprefix(f"{name}: "),
                    f"{came.rows:,}",
                    ranged(came, percent=True),
                    ranged(found.get((population, "model", "mean_probability")), percent=True),
                    ranged(found.get((population, "model", "auc"))),
                    ranged(found.get((population, "model", "brier"))),
                    f"small: {fewer} of the rarer outcome" if fewer < SMALL else "",
                )
            )
        if rows:
            heads = (name, "rows", "came true", "told on average", "AUC", "Brier", "note")
            told.append(table(heads, rows))
        else:
            told.append(f"<p class=note>By {name}: not known, no held-out row has it.</p>")
    return told


def _evaluations(facts: Facts) -> list[str]:
    told = ["<h2>Judged later, frozen, beside simpler ways to tell</h2>"]
    days = [day for kind, day in sorted(facts.figures) if kind == "evaluation"]
    if not days:
        told.append(
            "<p class=note>Not judged yet: <code>stratum models report --evaluate DATE</code> does it, once outcomes "
            f"of {facts.model.horizon_days} days after its training are there.</p>"
        )
    for day in days:
        figures = {(f.population, f.estimator, f.metric): f for f in facts.figures["evaluation", day]}
        told.append(f"<h3>Judged on {day}</h3>")
        for population in populations_of(figures):
            told += beside(figures, population, facts.target())
        if short := value_in_short(figures, "all", facts.currency):
            told.append(f"<p>{escape(short)}</p>")
        told += expected_value({"all accounts": (figures, "all")}, facts.currency)
        told += worth(figures, facts.currency)
    return told


def _decisions(facts: Facts) -> list[str]:
    told = ["<h2>Champion or not</h2>"]
    if not facts.promotions:
        return [*told, "<p class=note>No decision names this model.</p>"]
    rows = [
        (
            row.as_of_date, f"{row.decision}, by {'the rule' if row.decided_by == 'rule' else 'a person'}",
            row.champion, row.champion_before or "", row.challenger or "", row.metric or "",
            number(row.champion_value), number(row.challenger_value), number(row.margin), row.reason,
        )
        for row in facts.promotions
    ]  # fmt: skip
    heads = (
        "from", "decision", "champion", "before", "challenger", "metric", "champion's", "challenger's", "margin", "reason",
    )  # fmt: skip
    return [*told, table(heads, rows)]


def _limits(facts: Facts) -> list[str]:
    found = facts.model
    limits = [
        f"It has learned from {found.window_from} to {found.window_to}. A season that this holds once may not come again as "
        "it was, and one that it does not hold the model cannot know: read the rank before the level.",
        f"Its newest outcomes are {found.horizon_days} days older than the day it was trained on.",
        "It learned from accounts as they were, with what was done for them: it tells what comes if all goes on so, "
        "not what an action would change.",
        "Month-ends are restated for rows that arrive late, so the same training today may give other figures.",
        "An account that is none of those told of above has no score.",
        "Figures of slices are of few rows where the note says so; differences between slices are no causes.",
    ]
    unused = [plain_name(feature["name"]) for feature in found.features if not feature["used"]]
    if unused:
        limits.append(
            f"It does not know {'; '.join(unused)}: they hardly differed between accounts on most dates."
        )
    return ["<h2>Limits</h2>", "<ul>", *(f"<li>{escape(one)}</li>" for one in limits), "</ul>"]


def _parameters(facts: Facts) -> list[str]:
    rows = list(_flat("", facts.model.parameters))
    return ["<h2>Parameters and policy</h2>", table((), rows, head_column=True)]


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", str(value)


def _every_figure(facts: Facts) -> list[str]:
    rows = [
        (
            kind,
            day,
            f.population,
            f.estimator,
            f.metric,
            exact(f.value),
            exact(f.low),
            exact(f.high),
            f.rows,
        )
        for (kind, day), figures in sorted(facts.figures.items())
        for f in figures
    ]
    heads = ("kind", "date", "population", "estimator", "metric", "value", "low", "high", "rows")
    return ["<h2>Every figure</h2>", folded(f"{len(rows):,} rows of ml.metrics", table(heads, rows))]


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
