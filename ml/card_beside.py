"""The parts of a model card that set the model beside simpler ways to tell: how good each is, and what acting is worth."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape

from ml.acting import BY_VALUE, POLICY
from ml.acting import TITLES as RANKED
from ml.beside import speaks_of_orders, why_no_orders
from ml.card_parts import number, ranged, table
from ml.figures import POOLED
from ml.judge import (
    BG_NBD,
    GAMMA_GAMMA,
    LOGISTIC,
    MODEL,
    OBSERVED,
    ON_DATE,
    RULES,
    SHARES,
    TITLES,
    TRIAL_RULE,
    VALUED,
    WAYS,
    Figure,
    percent,
    who,
)
from ml.rules import speaks_of_trials
from ml.targets import Target
from ml.verdict import AHEAD, APART, BEHIND, Found, in_short, signed, standing, value_in_short

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
    if short := in_short(found, population):
        told.insert(1, f"<p>{escape(short)}</p>")
    return [*told, *(f"<p class=note>{escape(one)}</p>" for one in _absent(ways, target))]


def _absent(ways: Iterable[str], target: Target | None) -> list[str]:
    """Return why a way does not stand beside the model; it is told from what is known of the target and of the others."""
    if LOGISTIC not in ways:
        return ["Of simpler ways than the model recency alone was kept with these figures."]
    told = []
    if target is not None and speaks_of_trials(target):
        if TRIAL_RULE not in ways:
            told.append(
                "The trial rule does not stand beside the model: it (policy trial_rules) was not in force on one of these "
                "dates, no trial had anything that it counts, or the figures were made before it was ranked."
            )
    elif RULES not in ways:
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


def worth(found: Found, currency: str) -> list[str]:
    """Return what contacting those at the top would have been worth, by each way to rank; nothing where it is not told."""
    told: list[str] = []
    for population in populations_of(found):
        ways = [way for way in RANKED if (population, way, f"acting_{_PERCENT[0]}") in found]
        if not ways:
            continue
        cost, rate = (found[population, POLICY, name] for name in ("contact_cost", "offer_success_rate"))
        heads = (
            f"{who(population)}, {cost.rows:,} rows, {currency}",
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
                f"of {cost.value:,.2f} {escape(currency)} (policy). An assumption compares ways to rank; an experiment "
                "with a hold-out group measures it. A row is an account on a date.</p>"
            )
        told.append(table(heads, rows))
    return told


def worth_held_out(found: Found, target: Target | None, currency: str) -> list[str]:
    """Return the section of the card on what acting was worth on the held-out dates, or why it is not told."""
    head = "<h2>Worth of acting</h2>"
    told = worth(found, currency)
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


def expected_value(told: Mapping[str, tuple[Found, str]], currency: str) -> list[str]:
    """Return what was expected per account, what came, and how far off each way was: a row for each of `told`.

    It holds figures and their population by what they are of; nothing where no value was told.
    """
    kept = {title: of for title, of in told.items() if (of[1], OBSERVED, "value") in of[0]}
    ways = [way for way in VALUED if any((name, way, "value") in found for found, name in kept.values())]
    if not ways:
        return []
    rows: list[tuple[str, ...]] = []
    for title, (found, name) in kept.items():
        came = found[name, OBSERVED, "value"]
        of = f"{title}: {came.rows:,} rows, {_money(came)} came"
        for way in ways:
            missed = found.get((name, way, "value_missed"))
            rows.append(
                (
                    of,
                    VALUED[way],
                    _money(found.get((name, way, "value"))),
                    "" if missed is None else signed(missed, digits=2),
                    _money(found.get((name, way, "value_error"))),
                    _judged(found.get((name, f"{MODEL}-{way}", "value_error")), digits=2),
                )
            )
            of = ""
    heads = ("", "", "told", "told less came", "error", "the model's error less this")
    return [
        f"<p>Net revenue per account of the window, in {escape(currency)}: the probability of an order times what the "
        "account buys if it orders, beside BG/NBD's expected orders times Gamma-Gamma's mean order. The error is the root "
        "of the mean squared distance: a few large accounts make most of it.</p>",
        table(heads, rows),
    ]


def value_held_out(
    found: Found, dates: Mapping[date, Found], target: Target | None, currency: str
) -> list[str]:
    """Return the section of the card on expected values of the held-out dates; nothing where the model tells none."""
    if target is None or not target.has_value:
        return []
    told = expected_value(
        {"all held-out dates": (found, POOLED), **{str(day): (of, ON_DATE) for day, of in dates.items()}},
        currency,
    )
    if not told:
        told = [
            "<p class=note>Not told: there are no held-out dates to tell it of, or the model was trained before it was "
            "kept.</p>"
        ]
    elif (POOLED, GAMMA_GAMMA, "value") not in found:
        told.append(
            "<p class=note>BG/NBD × Gamma-Gamma does not stand beside the model: no fit of its parameters converged on one "
            "of these dates.</p>"
        )
    short = value_in_short(found, POOLED, currency)
    return ["<h2>Expected value</h2>", *([f"<p>{escape(short)}</p>"] if short else []), *told]


def date_by_date(dates: Mapping[date, Found]) -> list[str]:
    """Return the table of the held-out dates one by one: AUC and Brier of every way, and the model's less those.

    Nothing where they were not kept. What is ahead or behind is said of each difference whose interval does not hold 0.
    """
    kept = {day: found for day, found in dates.items() if (ON_DATE, MODEL, "auc") in found}
    if not kept:
        return []
    ways = [way for way in WAYS if any((ON_DATE, way, "auc") in found for found in kept.values())]
    rows: list[tuple[str, ...]] = []
    for day, found in kept.items():
        came = next(
            one for (_, way, name), one in found.items() if way == OBSERVED and name.endswith("_rate")
        )
        told = found[ON_DATE, MODEL, "mean_probability"]
        of_day = f"{day}: {came.rows:,} accounts, {came.value:.1%} came true, {told.value:.1%} was told"
        for metric in ("auc", "brier"):
            title = _METRICS[metric]
            rows.append((of_day, title, *(ranged(found.get((ON_DATE, way, metric))) for way in ways)))
            less = [_judged(found.get((ON_DATE, f"{MODEL}-{way}", metric))) for way in ways]
            rows.append(("", f"the model's {title} less this", *less))
            of_day = ""
    heads = ("held-out date", "", *(TITLES[way] for way in ways))
    return [
        "<h3>Date by date</h3>",
        "<p>Each held-out date alone, all accounts. Of how many dates the model is ahead says more than one figure of "
        f"all: {escape(_tally(kept, ways))}.</p>",
        table(heads, rows),
    ]


def _tally(dates: Mapping[date, Found], ways: Sequence[str]) -> str:
    """Return on how many dates the model's AUC is ahead of, behind or not told apart from each way's."""
    parts = []
    for way in ways:
        less = [found.get((ON_DATE, f"{MODEL}-{way}", "auc")) for found in dates.values()]
        words = [standing(figure) for figure in less if figure is not None]
        if words:
            counts = [f"{word} on {words.count(word)}" for word in (AHEAD, APART, BEHIND) if word in words]
            parts.append(f"{TITLES[way]}: {', '.join(one.replace(' of on', ' on') for one in counts)}")
    return f"AUC, of {len(dates)} dates: {'; '.join(parts)}" if parts else "no other way is known of them"


def _judged(figure: Figure | None, digits: int = 3) -> str:
    """Return a difference with its interval, and what it says where that does not hold 0; nothing where there is none."""
    if figure is None:
        return ""
    word = standing(figure)
    said = "" if word == APART else f" · {word.removesuffix(' of')}"
    return f"{signed(figure, digits)}{said}"


def _money(figure: Figure | None) -> str:
    """Return an amount with its interval, to the cent; nothing where there is none."""
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return f"{figure.value:,.2f}"
    return f"{figure.value:,.2f} ({figure.low:,.2f} to {figure.high:,.2f})"


def _amounts(figure: Figure | None) -> str:
    """Return an amount with its interval, whole; nothing where there is none."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{figure.value:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"
