"""The models and their judgements, as tables for a reader and as plain data for a program."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from include.warehouse.connect import connect
from ml import registry
from ml.acting import BY_VALUE
from ml.acting import TITLES as RANKED
from ml.card import Facts, facts_of, write_card
from ml.card_beside import populations_of
from ml.champion import champion_on
from ml.evaluate import Report, evaluate
from ml.figures import POOLED
from ml.judge import MODEL, OBSERVED, ON_DATE, SHARES, TITLES, VALUED, WAYS, Figure, percent, who
from ml.verdict import Found, in_short, value_in_short

__all__ = [
    "Report", "as_plain", "evaluate", "held_out_lines", "held_out_of", "held_out_plain", "lines", "list_models",
    "model_lines", "write_card",
]  # fmt: skip

WIDTH = 120
"""Characters of a line of the verdict, at most."""
_METRICS = {"auc": "AUC", "pr_auc": "PR-AUC", "lift": "lift at the top", "brier": "Brier"}


def list_models() -> list[dict[str, Any]]:
    """Return every model, the newest first, as plain data, without knobs and contract.

    `champion_on` is the newest scored date where the model is that date's champion, else None.
    """
    with connect("scorer") as connection:
        found = registry.all_models(connection)
        scored = connection.execute("select max(as_of_date) from ml.runs").fetchone()
        newest = scored[0] if scored else None
        champions = [champion_on(connection, name, newest) for name in {one.model for one in found} if newest]
    hidden = ("parameters", "features")
    champion_ids = {one.model_id for one in champions if one}
    return [
        {name: value for name, value in asdict(one).items() if name not in hidden}
        | {"champion_on": newest if one.model_id in champion_ids else None}
        for one in found
    ]


def model_lines(models: list[dict[str, Any]]) -> list[str]:
    """Return the list of models as lines of text."""
    if not models:
        return ["No model has been trained yet: a run trains one once there is enough history."]
    return [
        f"{one['model_id']}  trained as of {one['trained_as_of']} on {one['training_rows']:,} rows "
        f"({one['training_positives'] / one['training_rows']:.1%} came true) of {one['window_from']} to "
        f"{one['window_to']}; foretells {one['horizon_days']} days"
        + (f"; champion as of {one['champion_on']}" if one["champion_on"] else "")
        for one in models
    ]


def as_plain(report: Report) -> dict[str, Any]:
    """Return a report as plain data: its books, its figures one by one, its notes."""
    return asdict(report)


def lines(report: Report) -> list[str]:
    """Return a report as lines of text: a table per population, with what the model is ahead of each baseline."""
    shown = [
        f"Model {report.model_id} ({report.definition}), trained as of {report.trained_as_of}, judged on {report.on}:",
        f"accounts as they stood on {', '.join(map(str, report.cutoffs))}, and whether it came true ({report.definition}) "
        f"in the {report.horizon_days} days after.",
        "In brackets the 95 % interval of a bootstrap over accounts; differences are paired.",
        *report.notes,
    ]
    for population in dict.fromkeys(figure.population for figure in report.figures):
        shown += ["", *_of_population(report, population)]
    found = {(one.population, one.estimator, one.metric): one for one in report.figures}
    populations = list(dict.fromkeys(figure.population for figure in report.figures))
    return [*shown, *_of_value(report), *_in_short(found, populations, "all", report.currency)]


def held_out_of(model_id: str) -> Facts:
    """Return what the warehouse keeps of a model. Raises StratumError where there is none of that id."""
    with connect("scorer") as connection:
        return facts_of(connection, model_id)


def held_out_plain(facts: Facts) -> dict[str, Any]:
    """Return the figures that a model's training kept of held-out dates as plain data, one by one with their date."""
    kept = ((day, of) for (kind, day), of in facts.figures.items() if kind == "validation")
    figures = [{"as_of_date": day} | asdict(one) for day, of in kept for one in of]
    return {"model_id": facts.model.model_id, "currency": facts.currency, "figures": figures}


def held_out_lines(facts: Facts) -> list[str]:
    """Return how a model did on the dates it was held out from, beside simpler ways: date by date, and the verdict."""
    found, dates = facts.held_out(), facts.dates()
    shown = [
        f"Model {facts.model.model_id} ({facts.model.definition}), trained as of {facts.model.trained_as_of}: each held-out "
        "month-end",
        "was predicted by a copy of it, and of what stands beside it, that knew nothing of what came.",
    ]
    if not dates:
        return [*shown, "There are none of which a probability could be told, or they were not kept then."]
    for day, of_day in dates.items():
        rate = of_day[ON_DATE, OBSERVED, f"{facts.model.model}_rate"]
        told = of_day[ON_DATE, MODEL, "mean_probability"].value
        head = f"{day}: {rate.rows:,} accounts, {rate.value:.1%} came true, {told:.1%} was told"
        figures = {(way, metric): one for (_, way, metric), one in of_day.items()}
        shown += ["", head, *_of_ways(figures, {name: _METRICS[name] for name in ("auc", "brier")})]
    return [
        *shown,
        *_in_short(
            found, [one for one in populations_of(found) if one.startswith(POOLED)], POOLED, facts.currency
        ),
    ]


def _in_short(found: Found, populations: Sequence[str], whole: str, currency: str) -> list[str]:
    """Return the verdict: a sentence for each population on how the model stands beside simpler ways; one on values."""
    told = [f"{who(one)}: {short}" for one in populations if (short := in_short(found, one))]
    told += [short for short in [value_in_short(found, whole, currency)] if short]
    return ["", "In short", *(line for text in told for line in wrap(text, WIDTH, subsequent_indent="  "))]


def _of_value(report: Report) -> list[str]:
    """Return what was expected per account and what came, where the model tells a value."""
    found = {figure.estimator: figure for figure in report.figures if figure.metric == "value"}
    if OBSERVED not in found:
        return []
    shown = [
        "",
        f"Net revenue per account in the {report.horizon_days} days: {_money(found[OBSERVED])} {report.currency} came",
    ]
    for estimator, title in VALUED.items():
        if estimator in found:
            error = report.figure("all", estimator, "value_error")
            shown.append(f"  {title:<24} {_money(found[estimator])} expected")
            shown.append(f"  {'':<24} off by {_money(error)} (root mean square)")
    return shown


def _of_population(report: Report, population: str) -> list[str]:
    rate = report.figure(population, OBSERVED, f"{report.model}_rate")
    mean = report.figure(population, MODEL, "mean_probability")
    rows = "accounts" if len(report.cutoffs) == 1 else f"rows of accounts on {len(report.cutoffs)} dates"
    shown = [
        f"{who(population)}: {rate.rows:,} {rows}, of which {_with_interval(rate, percent=True)} came true; "
        f"mean probability {mean.value:.1%}"
    ]
    figures = {
        (figure.estimator, figure.metric): figure
        for figure in report.figures
        if figure.population == population
    }
    shown += _of_ways(figures, _METRICS)
    numbers = sorted(
        metric.split("_")[1]
        for _, metric in figures
        if metric.startswith("reliability") and metric.endswith("observed")
    )
    shown.append(f"  Of {len(numbers)} equal parts, from the lowest probability up: told → true")
    parts = [
        f"{figures[MODEL, f'reliability_{number}_predicted'].value:.0%} → "
        f"{figures[MODEL, f'reliability_{number}_observed'].value:.0%}"
        for number in numbers
    ]
    shown.append("    " + "   ".join(parts))
    return shown + _of_acting(figures, report.currency)


def _of_ways(figures: Mapping[tuple[str, str], Figure], metrics: Mapping[str, str]) -> list[str]:
    """Return each metric of each way, and how far the model's lies from it."""
    shown = []
    for metric, title in metrics.items():
        for estimator in WAYS:
            figure = figures.get((estimator, metric))
            if figure is None:  # rules rank and give no probability; warnings may not be kept
                continue
            ahead = figures.get((f"{MODEL}-{estimator}", metric))
            difference = f"   model less this: {_with_interval(ahead, sign=True)}" if ahead else ""
            head = title if estimator == MODEL else ""
            shown.append(f"  {head:<16} {TITLES[estimator]:<24} {_with_interval(figure)}{difference}")
    return shown


def _of_acting(figures: Mapping[tuple[str, str], Figure], currency: str) -> list[str]:
    """Return what contacting the top shares would have been worth, by each way to rank; nothing where it is not told."""
    shown = []
    for share in SHARES:
        metric = f"acting_{percent(share)}"
        for way, title in RANKED.items():
            figure = figures.get((way, metric))
            if figure is None:
                continue
            ahead = figures.get((f"{BY_VALUE}-{way}", metric))
            difference = f"   model by value less this: {_amounts(ahead)}" if ahead else ""
            head = f"worth at {share:.0%}" if way == MODEL else ""
            shown.append(f"  {head:<16} {title:<24} {_amounts(figure)}{difference}")
    return [f"  Worth of contacting those at the top, in {currency}:", *shown] if shown else []


def _money(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:,.2f}"
    return f"{figure.value:,.2f} ({figure.low:,.2f} to {figure.high:,.2f})"


def _amounts(figure: Figure) -> str:
    return f"{figure.value:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"


def _with_interval(figure: Figure, *, percent: bool = False, sign: bool = False) -> str:
    form = f"{'+' if sign else ''}.{1 if percent else 3}{'%' if percent else 'f'}"
    if figure.low is None or figure.high is None:
        return format(figure.value, form)
    return f"{figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}})"
