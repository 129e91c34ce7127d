"""The brakes: what of a plan looks like a mistake upstream rather than like news, so that a person is asked first."""

from dataclasses import dataclass, replace
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
    to_create: int = 0
    """Of those to send, records that would be made."""
    tiers_told: int = 0
    tiers_changed: int = 0
    scores_told: int = 0
    scores_moved: int = 0
    records_told: int = 0
    cleared: int = 0
    """Of the records to send, those of which a field would be cleared."""


@dataclass(frozen=True)
class Reason:
    """What a brake says of a sync: its figure (a share of 1, or a count), its limit, and in words.

    `holds` tells whether it stops the sync. A figure of None was not counted: the brake is switched off, or there is
    nothing to compare with.
    """

    brake: str
    figure: float | None
    limit: float | None
    says: str
    holds: bool = True


def look(brakes: Brakes, counts: Counts) -> list[Reason]:
    """Return what each brake says of a sync. A share equal to its limit passes."""
    return [
        _source(brakes, counts),
        _first(brakes, counts),
        _tiers(brakes, counts),
        _scores(brakes, counts),
        _creations(brakes, counts),
        *_removals(brakes, counts),
    ]


def reasons_to_hold(brakes: Brakes, counts: Counts) -> list[Reason]:
    """Return why a sync must not go on without a person; empty where it may."""
    return [reason for reason in look(brakes, counts) if reason.holds]


def _off(brake: str, name: str) -> Reason:
    return Reason(brake, None, None, f"switched off ({name})", holds=False)


def _uncounted(brake: str, limit: float | None, why: str) -> Reason:
    return Reason(brake, None, limit, why, holds=False)


def _judged(brake: str, figure: float, limit: float, says: str, advice: str = UPSTREAM) -> Reason:
    """Return what a brake says that holds above its limit; what to do is said only then."""
    holds = figure > limit
    return Reason(brake, figure, limit, f"{says}: {advice}" if holds else says, holds)


def _source(brakes: Brakes, counts: Counts) -> Reason:
    if counts.published == 0:
        return Reason("empty_source", 0, 1, f"no account is published, at least 1 is needed: {UPSTREAM}")
    if brakes.max_shrink is None:
        return _off("shrunken_source", "max_shrink")
    if not counts.published_before:
        return _uncounted("shrunken_source", brakes.max_shrink, "no sync has finished before")
    lost = max(counts.published_before - counts.published, 0)
    share = lost / counts.published_before
    return _judged(
        "shrunken_source",
        share,
        brakes.max_shrink,
        f"{lost:,} of {counts.published_before:,} accounts ({share:.1%}) are gone since the last sync, the limit is "
        f"{brakes.max_shrink:.1%} (max_shrink)",
    )


def _first(brakes: Brakes, counts: Counts) -> Reason:
    if not brakes.first_sync:
        return _off("first_sync", "first_sync")
    if not counts.is_first or not counts.to_send:
        why = "nothing is to be sent" if counts.is_first else "the target was told before"
        return Reason("first_sync", 0, None, why, holds=False)
    return Reason(
        "first_sync",
        counts.to_send,
        None,
        f"the first sync to this target would write to {counts.to_send:,} records: see what with `stratum sync plan`, "
        "then approve or reject",
    )


def _tiers(brakes: Brakes, counts: Counts) -> Reason:
    if brakes.max_tier_changes is None:
        return _off("tier_changes", "max_tier_changes")
    if not counts.tiers_told:
        why = f"no {brakes.tier_column} was told before"
        return _uncounted("tier_changes", brakes.max_tier_changes, why)
    share = counts.tiers_changed / counts.tiers_told
    return _judged(
        "tier_changes",
        share,
        brakes.max_tier_changes,
        f"{counts.tiers_changed:,} of {counts.tiers_told:,} accounts told before ({share:.1%}) change their "
        f"{brakes.tier_column}, the limit is {brakes.max_tier_changes:.1%} (max_tier_changes)",
    )


def _scores(brakes: Brakes, counts: Counts) -> Reason:
    if brakes.max_score_moves is None:
        return _off("score_moves", "max_score_moves")
    if not counts.scores_told:
        why = f"no {brakes.score_column} was told before"
        return _uncounted("score_moves", brakes.max_score_moves, why)
    share = counts.scores_moved / counts.scores_told
    return _judged(
        "score_moves",
        share,
        brakes.max_score_moves,
        f"the {brakes.score_column} of {counts.scores_moved:,} of {counts.scores_told:,} accounts told before "
        f"({share:.1%}) moves by more than {brakes.score_step:g}, the limit is {brakes.max_score_moves:.1%} "
        "(max_score_moves)",
    )


def _creations(brakes: Brakes, counts: Counts) -> Reason:
    if brakes.max_creations is None:
        return _off("creations", "max_creations")
    says = f"{counts.to_create:,} records would be created, the limit is {brakes.max_creations:,} (max_creations)"
    return _judged(
        "creations",
        counts.to_create,
        brakes.max_creations,
        says,
        "see which with `stratum sync plan`, then approve or reject",
    )


def _removals(brakes: Brakes, counts: Counts) -> list[Reason]:
    """Judge the records of which a field would be cleared, by share and by number: either holds."""
    share_of, most = brakes.max_removals, brakes.max_removals_count
    told = f"fields of {counts.cleared:,} of {counts.records_told:,} records told before"
    if share_of is None:
        by_share = _off("removals", "max_removals")
    elif not counts.records_told:
        by_share = _uncounted("removals", share_of, "no record was told before")
    else:
        share = counts.cleared / counts.records_told
        says = f"{told} ({share:.1%}) would be cleared, the limit is {share_of:.1%} (max_removals)"
        by_share = _judged("removals", share, share_of, says)
    if most is None:
        return [by_share, _off("removals_count", "max_removals_count")]
    says = f"{told} would be cleared, the limit is {most:,} (max_removals_count)"
    return [by_share, _judged("removals_count", counts.cleared, most, says)]


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
    told, cleared = _removal_counts(connection, mapping.target)
    counts = Counts(plan.published, before, len(plan.changes), is_first, plan.creations, *numbers)
    return replace(counts, records_told=told, cleared=cleared)


def _removal_counts(connection: psycopg.Connection, target: str) -> tuple[int, int]:
    """Return how many records hold a value we wrote, and of how many the plan would clear one."""
    row = connection.execute(
        """
        select
            (
                select count(*) from sync.ledger
                where target = %s and jsonb_path_exists(confirmed, '$.* ? (@ != null)')
            ),
            (
                select count(*) from pg_temp.planned
                where state = 'change' and jsonb_path_exists(changes, '$.* ? (@ == null)')
            )
        """,
        [target],
    ).fetchone()
    return row  # type: ignore[return-value]  # one row


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
