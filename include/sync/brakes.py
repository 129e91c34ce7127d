"""The brakes: what of a plan looks like a mistake upstream rather than like news, so that a person is asked first."""

from dataclasses import dataclass
from decimal import Decimal

import psycopg
from psycopg import sql

from include.errors import StratumError
from include.sync.mapping import Brakes, SyncMapping
from include.sync.plan import Plan

NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"
UPSTREAM = "look at what is published (stratum status, the gates), then approve or reject"


@dataclass(frozen=True)
class Counts:
    """What the brakes look at. Numbers are of accounts; `told` ones are those the CRM confirmed a value of."""

    published: int
    published_before: int | None
    """At the target's last finished sync; None before the first."""
    to_send: int
    is_first: bool
    """Nothing was ever confirmed by the target."""
    tiers_told: int = 0
    tiers_changed: int = 0
    scores_told: int = 0
    scores_moved: int = 0


@dataclass(frozen=True)
class Reason:
    """A brake that stopped a sync: its figure (a share of 1, or a count), the limit it passed, and what it says."""

    brake: str
    figure: float
    limit: float | None
    says: str


def reasons_to_hold(brakes: Brakes, counts: Counts) -> list[Reason]:
    """Return why a sync must not go on without a person; empty where it may. A share equal to its limit passes."""
    found = [_source(brakes, counts), _first(brakes, counts), _tiers(brakes, counts), _scores(brakes, counts)]
    return [reason for reason in found if reason]


def _source(brakes: Brakes, counts: Counts) -> Reason | None:
    if brakes.max_shrink is None:
        return None
    if counts.published == 0:
        return Reason("empty_source", 0, 1, f"no account is published, at least 1 is needed: {UPSTREAM}")
    if not counts.published_before:
        return None
    lost = counts.published_before - counts.published
    share = lost / counts.published_before
    if share <= brakes.max_shrink:
        return None
    return Reason(
        "shrunken_source",
        share,
        brakes.max_shrink,
        f"{lost:,} of {counts.published_before:,} accounts ({share:.1%}) are gone since the last sync, the limit is "
        f"{brakes.max_shrink:.1%} (max_shrink): {UPSTREAM}",
    )


def _first(brakes: Brakes, counts: Counts) -> Reason | None:
    if not brakes.first_sync or not counts.is_first or not counts.to_send:
        return None
    return Reason(
        "first_sync",
        counts.to_send,
        None,
        f"the first sync to this target would write to {counts.to_send:,} records: see what with `stratum sync plan`, "
        "then approve or reject",
    )


def _tiers(brakes: Brakes, counts: Counts) -> Reason | None:
    if brakes.max_tier_changes is None or not counts.tiers_told:
        return None
    share = counts.tiers_changed / counts.tiers_told
    if share <= brakes.max_tier_changes:
        return None
    return Reason(
        "tier_changes",
        share,
        brakes.max_tier_changes,
        f"{counts.tiers_changed:,} of {counts.tiers_told:,} accounts told before ({share:.1%}) change their "
        f"{brakes.tier_column}, the limit is {brakes.max_tier_changes:.1%} (max_tier_changes): {UPSTREAM}",
    )


def _scores(brakes: Brakes, counts: Counts) -> Reason | None:
    if brakes.max_score_moves is None or not counts.scores_told:
        return None
    share = counts.scores_moved / counts.scores_told
    if share <= brakes.max_score_moves:
        return None
    return Reason(
        "score_moves",
        share,
        brakes.max_score_moves,
        f"the {brakes.score_column} of {counts.scores_moved:,} of {counts.scores_told:,} accounts told before "
        f"({share:.1%}) moves by more than {brakes.score_step:g}, the limit is {brakes.max_score_moves:.1%} "
        f"(max_score_moves): {UPSTREAM}",
    )


def count(connection: psycopg.Connection, mapping: SyncMapping, plan: Plan) -> Counts:
    """Return what the brakes look at, of the published set against what the target confirmed.

    Changes are counted over every account, whether or not this sync may send it. A column the target is not told
    changes nothing there and is not counted. Raises StratumError where the brakes name such a column on purpose, or
    a score that is no number.
    """
    tier, score = _field(mapping, "tier_column"), _field(mapping, "score_column")
    if score and plan.kinds[score] != "number":
        raise StratumError(
            f"brakes.score_column of {mapping.target} is {mapping.brakes.score_column}, which is a "
            f"{plan.kinds[score]}: name a number, or set max_score_moves to null in sync.yml."
        )
    row = connection.execute(
        sql.SQL("""
            select
                (
                    select published from sync.runs where target = %(target)s and status = 'finished'
                    order by sync_id desc limit 1
                ),
                not exists (select from sync.ledger where target = %(target)s),
                {tiers},
                {scores}
            from sync.ledger as ledger
            inner join published.customer_360 as account using (account_id)
            where ledger.target = %(target)s
            having true -- one row, where no column is counted too
        """).format(tiers=_tier_counts(mapping, plan, tier), scores=_score_counts(mapping, score)),
        {"target": mapping.target, "step": Decimal(str(mapping.brakes.score_step)), "number": NUMBER},
    ).fetchone()
    before, is_first, *numbers = row  # type: ignore[misc]  # an aggregate has one row
    return Counts(plan.published, before, len(plan.changes), is_first, *numbers)


def _field(mapping: SyncMapping, which: str) -> str | None:
    """Return the CRM's field that is told the column of a brake; None where none is, and nobody asked for it."""
    brakes = mapping.brakes
    column = getattr(brakes, which)
    fields = [name for name, told in mapping.columns.items() if told == column]
    if not fields and which in brakes.model_fields_set:
        raise StratumError(
            f"brakes.{which} of {mapping.target} is {column}, which no field of it is told, so it brakes nothing: name a "
            "column that a field is told, or leave it out of sync.yml."
        )
    return fields[0] if fields else None


def _tier_counts(mapping: SyncMapping, plan: Plan, field: str | None) -> sql.Composable:
    if field is None:
        return sql.SQL("0, 0")
    told = sql.SQL("ledger.confirmed ->> {}").format(sql.Literal(field))
    now = sql.SQL("account.{}").format(sql.Identifier(mapping.brakes.tier_column))
    # The ledger holds texts, a number without trailing zeros.
    text = sql.SQL("trim_scale({}::numeric)::text" if plan.kinds[field] == "number" else "{}::text").format(
        now
    )
    changed = sql.SQL("nullif({}, '') is distinct from {}").format(text, told)
    if mapping.fields[field].when_null == "keep":  # then a null is not told
        changed = sql.SQL("({} and {}::text <> '')").format(changed, now)
    return sql.SQL("count({told}), count(*) filter (where {told} is not null and {changed})").format(
        told=told, changed=changed
    )


def _score_counts(mapping: SyncMapping, field: str | None) -> sql.Composable:
    if field is None:
        return sql.SQL("0, 0")
    told = sql.SQL("ledger.confirmed ->> {}").format(sql.Literal(field))
    return sql.SQL("""
        count(*) filter (where {told} ~ %(number)s),
        count(*) filter (
            where case when {told} ~ %(number)s
                then abs(account.{column}::numeric - ({told})::numeric) > %(step)s end
        )
    """).format(told=told, column=sql.Identifier(mapping.brakes.score_column))
