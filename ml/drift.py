"""Drift: how far what a run's model saw and told lies from its training, and from the last published set.

Measured right after scoring, on the frame that is in memory. The measure is the population stability index over bins
that are kept with the model: the sum over the bins of (share now - share then) × ln(share now / share then), as in
Siddiqi, "Credit Risk Scorecards" (2006), with its rule of thumb of 0.1 (look) and 0.25 (shifted), dated rows of
expectations/limits.csv. docs/decisions/0031 says what was added to it, and why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import chi2

from include.quality.limits import limits
from ml.frames import LABEL
from ml.registry import Model

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
State = Literal["steady", "moved", "shifted", "not_compared"]

PARTS = 10  # bins of equally many known values
CHANCE = 0.99  # the index exceeds psi_by_chance in 1 % of the cases in which nothing moved
SCORE = "probability"
SHOWN = 3  # names told in a line; all are rows of ml.drift
QUANTILES = np.arange(1, 20) / 20  # 0.05 to 0.95, as the gate's score_shift


@dataclass(frozen=True)
class Bins:
    """How values lay: bins by their upper `edges` (the edge belongs to the bin), and rows of each, the missing last."""

    edges: Array
    counts: Counts
    accounts: int
    mean: float | None


class Now(NamedTuple):
    """How values lie now: rows of each bin of training, the missing last, and the sum of the known values."""

    counts: Counts
    total: float

    @property
    def accounts(self) -> int:
        """All rows, those without a value among them."""
        return int(self.counts.sum())

    @property
    def missing(self) -> float:
        """The share without a value."""
        return float(self.counts[-1] / self.counts.sum())

    @property
    def mean(self) -> float | None:
        """The mean of the known values."""
        known = self.counts[:-1].sum()
        return float(self.total / known) if known else None


class Seen:
    """What a run's model sees of each feature it uses, added up chunk by chunk: no run holds all accounts at once."""

    def __init__(self, found: Model, kept: Mapping[str, Bins]) -> None:
        self.kept = kept
        self._parts: dict[str, list[Now]] = {one["name"]: [] for one in found.features if one["used"]}

    def add(self, frame: pd.DataFrame) -> None:
        """Count the features of some more accounts, one row each."""
        for name, parts in self._parts.items():
            parts.append(now_of(frame[name].to_numpy(np.float64), self.kept.get(name)))

    def by_name(self) -> dict[str, Now]:
        """Return how the values of all accounts lie, by feature."""
        return {
            name: Now(np.sum([part.counts for part in parts], axis=0), sum(part.total for part in parts))
            for name, parts in self._parts.items()
        }


@dataclass(frozen=True)
class Drift:
    """One row of ml.drift without its run: what of a name was measured against a reference."""

    subject: Literal["feature", "score"]
    name: str
    reference: Literal["training", "last_set"]
    reference_date: date | None
    accounts_then: int | None
    accounts_now: int
    psi: float | None
    psi_by_chance: float | None
    distance: float | None
    missing_then: float | None
    missing_now: float
    mean_then: float | None
    mean_now: float | None
    state: State
    reason: str | None


def bins_of(values: Array, accounts: int, mean: float | None = None) -> Bins:
    """Return the bins of values (NaN: missing): one for each where there are few, else tenths, ties never parted.

    A single value has an edge right below it too, so that a later one is seen on either side. `mean`, where it is
    given, stands for that of the known values.
    """
    known = values[~np.isnan(values)]
    different = np.unique(known)
    if len(different) > PARTS:
        tenths = np.quantile(known, np.arange(1, PARTS) / PARTS, method="inverted_cdf")
        edges = np.unique(tenths[tenths < different[-1]])
    elif len(different) == 1:
        edges = np.array([np.nextafter(different[0], -np.inf), different[0]])
    else:
        edges = different.astype(np.float64)
    if mean is None and len(known):
        mean = float(known.mean())
    return Bins(edges, counts_of(values, edges), accounts, mean)


def counts_of(values: Array, edges: Array) -> Counts:
    """Return how many values lie in each bin, and at the end how many are missing: len(edges) + 2 numbers."""
    missing = np.isnan(values)
    place = np.searchsorted(edges, values[~missing], side="left")
    return np.r_[np.bincount(place, minlength=len(edges) + 1), missing.sum()].astype(np.int64)


def now_of(values: Array, then: Bins | None) -> Now:
    """Return how values (NaN: missing) lie: over the bins of training, or in one where there are none."""
    edges = np.empty(0) if then is None else then.edges
    return Now(counts_of(values, edges), float(values[~np.isnan(values)].sum()))


def psi(then: Counts, now: Counts) -> float:
    """Return the population stability index of two rows of counts over the same bins.

    A bin that is empty on both sides counts for nothing; one that is empty on one side counts as half a row there,
    since a share of 0 has no logarithm.
    """
    seen = (then > 0) | (now > 0)
    before, after = (np.maximum(counts[seen], 0.5) / counts.sum() for counts in (then, now))
    return float(((after - before) * np.log(after / before)).sum())


def psi_by_chance(then: Counts, now: Counts, accounts_then: int) -> float:
    """Return the index that two samples of one distribution exceed in 1 % of cases.

    It is distributed as chi-square of (bins - 1) degrees × (1/n + 1/m), Yurdakul and Naranjo, "Statistical properties
    of the population stability index" (2020). n is the number of different accounts then: month-ends repeat them.
    """
    bins = int(((then > 0) | (now > 0)).sum())
    if bins < 2:
        return 0.0
    return float(chi2.ppf(CHANCE, bins - 1) * (1 / accounts_then + 1 / now.sum()))


def training_bins(frame: pd.DataFrame, used: list[str], told: Array) -> dict[str, Bins]:
    """Return the bins of each used feature over a labelled training frame, and of the out-of-time probabilities.

    `told` are these, at the level of the whole history: without what was foretold of their dates.
    """
    accounts = int(frame["account_id"].nunique())
    bins = {name: bins_of(frame[name].to_numpy(np.float64), accounts) for name in used}
    return bins | {SCORE: bins_of(told, min(accounts, len(told)), float(frame[LABEL].mean()))}


def save_bins(connection: psycopg.Connection, model_id: str, bins: Mapping[str, Bins]) -> None:
    """Keep the bins of a fitted model; the same model once more changes nothing."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ml.training_bins (model_id, name, edges, counts, accounts, mean) "
            "values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
            [
                (model_id, name, one.edges.tolist(), one.counts.tolist(), one.accounts, one.mean)
                for name, one in bins.items()
            ],
        )


def bins_of_model(connection: psycopg.Connection, model_id: str) -> dict[str, Bins]:
    """Return the bins kept with a model; none of one that was trained before there were any."""
    rows = connection.execute(
        "select name, edges, counts, accounts, mean from ml.training_bins where model_id = %s", [model_id]
    ).fetchall()
    return {
        name: Bins(np.array(edges, dtype=np.float64), np.array(counts, dtype=np.int64), accounts, mean)
        for name, edges, counts, accounts, mean in rows
    }


def watch(
    connection: psycopg.Connection,
    run_id: str,
    as_of: date,
    found: Model,
    seen: Seen,
    probability: Array,
    level: float = 0.0,
) -> list[Drift]:
    """Measure a run's drift, write it to ml.drift in place of what stood there, and return it.

    `seen` is what the model saw of the accounts, `probability` what it told of each. `level` (log-odds) is what was foretold
    of the date and is in every probability: the bins of training hold none, so it is taken off where the two are compared.
    Else a season that was foretold would read as a shift of the accounts.
    """
    limit = limits(as_of)
    rows = [
        _against_training("feature", name, now, seen.kept.get(name), found, limit)
        for name, now in seen.by_name().items()
    ]
    then = seen.kept.get(SCORE)
    at_level_of_training = expit(logit(probability) - level) if level else probability
    rows.append(_against_training("score", SCORE, now_of(at_level_of_training, then), then, found, limit))
    rows.append(_against_last_set(connection, as_of, found, probability, limit))
    _write(connection, run_id, as_of, found, rows)
    return rows


def forget(connection: psycopg.Connection, run_id: str, model: str) -> None:
    """Take a run's drift away: it is scored anew."""
    connection.execute("delete from ml.drift where run_id = %s and model = %s", [run_id, model])


def last_set(
    connection: psycopg.Connection, as_of: date, found: Model, most_days: float
) -> tuple[date, Array] | str:
    """Return date and probabilities of the newest earlier set that is published, or why there is none to compare with."""
    row = connection.execute(
        "select run_id, as_of_date from published.history_run where as_of_date < %s order by as_of_date desc limit 1",
        [as_of],
    ).fetchone()
    if row is None:
        return "no earlier set is published: there is nothing to compare with"
    run_id, day = row
    if (as_of - day).days > most_days:
        return f"the last published set is of {day}, more than {most_days:.0f} days ago (score_shift_days)"
    told = connection.execute(
        "select definition, horizon_days from ml.runs where run_id = %s and model = %s and status = 'scored'",
        [run_id, found.model],
    ).fetchone()
    if told is None:
        return f"the last published set, of {day}, holds no scores of {found.model}"
    if tuple(told) != (found.definition, found.horizon_days):
        return f"the last published set, of {day}, told something else: {told[0]} in {told[1]} days"
    rows = connection.execute(
        "select probability::float8 from ml.scores where run_id = %s and model = %s", [run_id, found.model]
    ).fetchall()
    if not rows:
        return f"the scores of the last published set, of {day}, are no longer kept"
    return day, np.array(rows, dtype=np.float64)[:, 0]


def _against_training(
    subject: Literal["feature", "score"],
    name: str,
    now: Now,
    then: Bins | None,
    found: Model,
    limit: Mapping[str, float],
) -> Drift:
    if then is None:
        reason = f"model {found.model_id} was trained before its training window was kept: the next one is compared"
        return _not_compared(subject, name, "training", now, reason)
    return _compared(subject, name, "training", found.window_to, then, now, None, limit)


def _against_last_set(
    connection: psycopg.Connection, as_of: date, found: Model, probability: Array, limit: Mapping[str, float]
) -> Drift:
    last = last_set(connection, as_of, found, limit["score_shift_days"])
    if isinstance(last, str):
        return _not_compared("score", SCORE, "last_set", now_of(probability, None), last)
    day, before = last
    apart = np.abs(np.quantile(probability, QUANTILES) - np.quantile(before, QUANTILES)).mean()
    then = bins_of(before, len(before))
    return _compared("score", SCORE, "last_set", day, then, now_of(probability, then), float(apart), limit)


def _compared(
    subject: Literal["feature", "score"],
    name: str,
    reference: Literal["training", "last_set"],
    reference_date: date,
    then: Bins,
    now: Now,
    distance: float | None,
    limit: Mapping[str, float],
) -> Drift:
    index, chance = psi(then.counts, now.counts), psi_by_chance(then.counts, now.counts, then.accounts)
    missing_then = float(then.counts[-1] / then.counts.sum())
    gone = abs(now.missing - missing_then) > limit["missing_shift"]
    state: State = "steady"
    if index > chance and (index > limit["psi_shifted"] or gone):
        state = "shifted"
    elif index > chance and index > limit["psi_moved"]:
        state = "moved"
    return Drift(
        subject,
        name,
        reference,
        reference_date,
        then.accounts,
        now.accounts,
        index,
        chance,
        distance,
        missing_then,
        now.missing,
        then.mean,
        now.mean,
        state,
        None,
    )


def _not_compared(
    subject: Literal["feature", "score"],
    name: str,
    reference: Literal["training", "last_set"],
    now: Now,
    reason: str,
) -> Drift:
    return Drift(
        subject=subject,
        name=name,
        reference=reference,
        reference_date=None,
        accounts_then=None,
        accounts_now=now.accounts,
        psi=None,
        psi_by_chance=None,
        distance=None,
        missing_then=None,
        missing_now=now.missing,
        mean_then=None,
        mean_now=now.mean,
        state="not_compared",
        reason=reason,
    )


def _write(connection: psycopg.Connection, run_id: str, as_of: date, found: Model, rows: list[Drift]) -> None:
    forget(connection, run_id, found.model)
    columns = list(Drift.__dataclass_fields__)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"insert into ml.drift (run_id, model, as_of_date, model_id, {', '.join(columns)}) "  # noqa: S608
            f"values (%s, %s, %s, %s, {', '.join(['%s'] * len(columns))})",
            [
                (run_id, found.model, as_of, found.model_id, *(getattr(row, c) for c in columns))
                for row in rows
            ],
        )


def told(rows: list[Drift]) -> str | None:
    """Return in plain words what of a run has shifted, the farthest first; None where all lies as it did."""
    shifted = sorted(
        (row for row in rows if row.state == "shifted"),
        key=lambda row: (row.subject == "feature", -(row.psi or 0)),
    )
    if not shifted:
        return None
    more = f"; and {len(shifted) - SHOWN} more" if len(shifted) > SHOWN else ""
    return f"{len(shifted)} shifted: " + "; ".join(_told(row) for row in shifted[:SHOWN]) + more


def _told(row: Drift) -> str:
    what = "the score" if row.subject == "score" else row.name
    then = (
        "in training"
        if row.reference == "training"
        else f"in the last published set, of {row.reference_date}"
    )
    missing = (
        f"; without a value {row.missing_now:.0%}, {row.missing_then:.0%} {then}"
        if max(row.missing_now, row.missing_then or 0.0) >= 0.005  # which is told as 1 %
        else ""
    )
    means = f"mean {_number(row.mean_now)}, {_number(row.mean_then)} {then}"
    return f"{what} lies otherwise than {then} (PSI {row.psi:.2f}, {means}{missing})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.4g}"
