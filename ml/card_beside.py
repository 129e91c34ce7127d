"""The parts of a model card that set the model beside simpler ways to tell: how good each is, and what acting is worth."""

from collections.abc import Iterable, Mapping
from html import escape

from ml.acting import BY_VALUE, POLICY
from ml.acting import TITLES as RANKED
from ml.beside import speaks_of_orders, why_no_orders
from ml.card_parts import number, ranged, table
from ml.figures import POOLED
from ml.judge import (
    BG_NBD,
    LOGISTIC,
    MODEL,
    OBSERVED,
    RULES,
    SHARES,
    TITLES,
    VALUED,
    WAYS,
    Figure,
    percent,
    who,
)
from ml.targets import Target

Found = Mapping[tuple[str, str, str], Figure]
"""Figures by population, estimator and metric."""

_PERCENT = [percent(share) for share in SHARES]
_METRICS = {
    "auc": "AUC",
    "pr_auc": "PR-AUC",
    "brier": "Brier",
    "log_loss": "log loss",
    "ece": "calibration error (ECE)",
    **{f"lift_{share}": f"lift at {int(share)} %" for share in _PERCENT},
    **{f"gain_{share}": f"gain at {int(share)} %" for share in _PERCENT},
}
_COMPARED = ("auc", "pr_auc", "brier")
"""Metrics whose difference is told with its interval."""


def populations_of(found: Found) -> list[str]:
    """Return the populations that the model's AUC is known of and that are no slices: all first, then recent buyers."""
    names = [name for name, way, metric in found if (way, metric) == (MODEL, "auc") and ": " not in name]
    return sorted(names, key=lambda name: (name != POOLED and name != "all", name))


def beside(found: Found, population: str, target: Target | None) -> list[str]:
    """Return the table of a population: a row per metric, a column per way; and why a way is not among them."""
    ways = [way for way in WAYS if (population, way, "auc") in found]
    rows = []
    for metric, title in _METRICS.items():
        cells = [ranged(found.get((population, way, metric))) for way in ways]
        if any(cells):
            rows.append((title, *cells))
        less = [ranged(found.get((population, f"{MODEL}-{way}", metric))) for way in ways]
        if metric in _COMPARED and any(less):
            rows.append((f"the model's {title} less this", *less))
    told = [f"<h3>{escape(who(population))}</h3>", table(("", *(TITLES[way] for way in ways)), rows)]
    return [*told, *(f"<p class=note>{escape(one)}</p>" for one in _absent(ways, target))]


def _absent(ways: Iterable[str], target: Target | None) -> list[str]:
    """Return why a way does not stand beside the model; it is told from what is known of the target and of the others."""
    if LOGISTIC not in ways:
        return ["Of simpler ways than the model recency alone was kept with these figures."]
    told = []
    if RULES not in ways:
        told.append(
            "The warning rules do not stand beside the model: on these dates warnings are kept of no account or not of all, "
            "or none could tell anything (they speak of accounts that have ordered or pay by a contract)."
        )
    if BG_NBD not in ways and target is not None:
        told.append(
            "BG/NBD does not stand beside the model: no fit of its parameters converged on one of these dates."
            if speaks_of_orders(target)
            else why_no_orders(target)
        )
    return told


def worth(found: Found) -> list[str]:
    """Return what contacting those at the top would have been worth, by each way to rank; nothing where it is not told."""
    told: list[str] = []
    for population in populations_of(found):
        ways = [way for way in RANKED if (population, way, f"acting_{_PERCENT[0]}") in found]
        if not ways:
            continue
        cost, rate = (found[population, POLICY, name] for name in ("contact_cost", "offer_success_rate"))
        heads = (
            f"{who(population)}, {cost.rows:,} rows",
            *(f"highest {int(share)} %" for share in _PERCENT),
            "per contact at 10 %",
            "model by value less this, at 10 %",
        )
        rows = [
            (
                RANKED[way],
                *(_amounts(found.get((population, way, f"acting_{share}"))) for share in _PERCENT),
                number(found[population, way, "acting_10"].value / (0.10 * cost.rows)),
                _amounts(found.get((population, f"{BY_VALUE}-{way}", "acting_10"))),
            )
            for way in ways
        ]
        if not told:
            told.append(
                "<p>The sum of what was at stake with those that were then lost, times the share that a contact keeps, less "
                f"the contacts, had the accounts at the top been contacted: assumed are {rate.value:.0%} kept and a cost "
                f"of {cost.value:,.2f} (policy, reporting currency). An assumption compares ways to rank; an experiment "
                "with a hold-out group measures it. A row is an account on a date.</p>"
            )
        told.append(table(heads, rows))
    return told


def worth_held_out(found: Found, target: Target | None) -> list[str]:
    """Return the section of the card on what acting was worth on the held-out dates, or why it is not told."""
    head = "<h2>Worth of acting</h2>"
    told = worth(found)
    if told:
        return [head, "<p>On the held-out dates above.</p>", *told]
    if target is not None and target.words.risk < 0:
        why = "what it foretells is no loss that a contact could keep off"
    else:
        why = (
            "there are no held-out dates to tell it of, their policy (offer_success_rate, contact_cost) was not known, or "
            "the model was trained before it was kept"
        )
    return [head, f"<p class=note>Not told: {why}.</p>"]


def expected_value(found: Found) -> list[str]:
    """Return what was expected per account and what came, where the model tells a value; nothing where it does not."""
    true = found.get(("all", OBSERVED, "value"))
    if true is None:
        return []
    rows = [
        (title, number(figure.value), number(found["all", way, "value_error"].value))
        for way, title in VALUED.items()
        if (figure := found.get(("all", way, "value"))) is not None
    ]
    heads = (f"Net revenue per account: {number(true.value)} came", "expected", "off by (root mean square)")
    return [table(heads, rows)]


def _amounts(figure: Figure | None) -> str:
    """Return an amount with its interval, whole; nothing where there is none."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.value:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"
