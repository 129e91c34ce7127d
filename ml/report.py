"""The models and their judgements, as tables for a reader and as plain data for a program."""

from dataclasses import asdict
from typing import Any

from include.warehouse.connect import connect
from ml import registry
from ml.evaluate import BASELINES, BG_NBD, LOGISTIC, Figure, Report, evaluate
from ml.train import MODEL, OBSERVED, RECENCY

__all__ = ["Report", "as_plain", "evaluate", "lines", "list_models", "model_lines"]

_NAMES = {
    MODEL: "model",
    RECENCY: "recency alone",
    LOGISTIC: "logistic regression",
    BG_NBD: "BG/NBD, expected orders",
}
_METRICS = {"auc": "AUC", "pr_auc": "PR-AUC", "lift": "lift at the top", "brier": "Brier"}


def list_models() -> list[dict[str, Any]]:
    """Return every model, the newest first, as plain data, without knobs and contract."""
    with connect("scorer") as connection:
        found = registry.all_models(connection)
    hidden = ("parameters", "features")
    return [{name: value for name, value in asdict(one).items() if name not in hidden} for one in found]


def model_lines(models: list[dict[str, Any]]) -> list[str]:
    """Return the list of models as lines of text."""
    if not models:
        return ["No model has been trained yet: a run trains one once there is enough history."]
    return [
        f"{one['model_id']}  trained as of {one['trained_as_of']} on {one['training_rows']:,} rows "
        f"({one['training_positives'] / one['training_rows']:.1%} churned) of {one['window_from']} to "
        f"{one['window_to']}; foretells {one['horizon_days']} days"
        for one in models
    ]


def as_plain(report: Report) -> dict[str, Any]:
    """Return a report as plain data: its books, its figures one by one, its notes."""
    return asdict(report)


def lines(report: Report) -> list[str]:
    """Return a report as lines of text: a table per population, with what the model is ahead of each baseline."""
    shown = [
        f"Model {report.model_id}, trained as of {report.trained_as_of}, judged on {report.on}:",
        f"accounts as they stood on {report.cutoff}, and whether they ordered in the {report.horizon_days} days after.",
        "In brackets the 95 % interval of a bootstrap over accounts; differences are paired.",
        *report.notes,
    ]
    for population in dict.fromkeys(figure.population for figure in report.figures):
        shown += ["", *_of_population(report, population)]
    return shown


def _of_population(report: Report, population: str) -> list[str]:
    rate = report.figure(population, OBSERVED, "churn_rate")
    mean = report.figure(population, MODEL, "mean_probability")
    who = (
        "All who had bought"
        if population == "all"
        else f"Bought in the last {population.partition('_')[2]} days"
    )
    shown = [
        f"{who}: {rate.rows:,} accounts, of which {_with_interval(rate, percent=True)} churned; "
        f"mean probability {mean.value:.1%}"
    ]
    figures = {
        (figure.estimator, figure.metric): figure
        for figure in report.figures
        if figure.population == population
    }
    for metric, title in _METRICS.items():
        for estimator in (MODEL, *BASELINES):
            figure = figures.get((estimator, metric))
            if figure is None:  # BG/NBD ranks and gives no probability
                continue
            ahead = figures.get((f"{MODEL}-{estimator}", metric))
            difference = f"   model less this: {_with_interval(ahead, sign=True)}" if ahead else ""
            head = title if estimator == MODEL else ""
            shown.append(f"  {head:<16} {_NAMES[estimator]:<24} {_with_interval(figure)}{difference}")
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
    return shown


def _with_interval(figure: Figure, *, percent: bool = False, sign: bool = False) -> str:
    form = f"{'+' if sign else ''}.{1 if percent else 3}{'%' if percent else 'f'}"
    if figure.low is None or figure.high is None:
        return format(figure.value, form)
    return f"{figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}})"
