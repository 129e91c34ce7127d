"""The dry run: what a sync would tell, field by field, and what cannot be known without asking the CRM."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date

import psycopg

from include.sources.config import Sources
from include.sync.brakes import Reason, count, look
from include.sync.creation import can_find, show_found
from include.sync.mapping import SyncMapping
from include.sync.overwrite import Shown, apply_overwrite_rules, present_values
from include.sync.plan import Change, Plan, make_plan
from include.sync.run import mapping_of, published_run
from include.sync.target import Target
from include.sync.targets import open_target
from include.warehouse.connect import connect


@dataclass(frozen=True)
class FieldChange:
    """One field of one record: `old` is what the CRM holds (`known` is 'read') or what it last confirmed ('confirmed').

    With `known` 'reconciled' it is what the CRM held when it was reconciled; with 'no' nobody can say what is there: the
    field was never told, and the CRM was not read. `kind` is first (never told), changed, cleared, heal (a
    reconciliation found another value than was told, and lets it be told again), same (the CRM already holds it), or
    create (the record is to be made: there is no old value).
    """

    name: str
    old: str | None
    new: str | None
    known: str
    kind: str
    has_drifted: bool = False
    """Whether the CRM holds another value than it last confirmed: somebody changed it there."""


@dataclass(frozen=True)
class RecordChange:
    """One record of the dry run; `is_there` is false where the CRM was read and has no such record.

    One that is to be made has no record_id: `new:` and the account's id stand for it.
    """

    account_id: str
    record_id: str
    is_removal: bool
    fields: list[FieldChange]
    is_there: bool = True
    is_creation: bool = False


@dataclass
class DryRun:
    """What a sync would do; queried = changes + unchanged + held. Nothing was written anywhere."""

    target: str
    run_id: str
    as_of: date
    queried: int
    changes: int
    unchanged: int
    held: dict[str, int]
    """Reason → rows."""
    removals: int
    """Of the changes, those that clear what was told of accounts that are gone or withdrew their consent."""
    creations: int
    """Of the changes, records that would be made."""
    unresolved: int
    """Records with an attempt that has no answer yet: a sync reads them back first, and plans then."""
    was_read: bool
    """Whether the old values are the CRM's present ones. Rows that are unchanged or held were not read."""
    cannot_know: list[str]
    """What this dry run cannot tell, in words."""
    brakes: list[Reason] = field(default_factory=list)
    """What each brake says of it; one that holds would stop the sync."""
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    """Field → kind of change → records."""
    drifted: int = 0
    """Fields of which the CRM holds another value than it last confirmed; known where it was read."""
    not_there: int = 0
    """Records that the CRM does not have; known where it was read."""
    records: list[RecordChange] = field(default_factory=list)
    """The first of the changes, as many as were asked for."""


def plan_sync(sources: Sources, as_of: date, name: str, read: bool = False, limit: int = 20) -> DryRun:
    """Return what a sync of the target would send, and the first `limit` records of it; nothing is sent or written.

    With `read` the CRM is asked for the present values of the records that would be told; without, no call is made.
    Raises StratumError as `sync_crm` does.
    """
    mapping = mapping_of(sources, name)
    with connect("syncer") as books:
        books.autocommit = True
        plan = make_plan(books, mapping, published_run(books, as_of), as_of)
        brakes = look(mapping.brakes, count(books, mapping, plan))  # as in a sync: before the CRM is asked
        if not read:
            return _dry_run(plan, mapping, None, limit, brakes)
        with open_target(mapping, "syncer") as target:
            if plan.creations and target.can_read and can_find(target, mapping):
                show_found(target, mapping, plan)
            apply_overwrite_rules(target, plan, mapping)
            return _dry_run(plan, mapping, target, limit, brakes)


def _dry_run(
    plan: Plan, mapping: SyncMapping, target: Target | None, limit: int, brakes: list[Reason]
) -> DryRun:
    asked = target if target is not None and target.can_read else None
    done = DryRun(
        target=mapping.target,
        run_id=plan.run_id,
        as_of=plan.as_of,
        queried=plan.queried,
        changes=len(plan.changes),
        unchanged=plan.unchanged,
        held=dict(plan.held_reasons),
        removals=plan.removals,
        creations=plan.creations,
        unresolved=plan.unresolved,
        was_read=asked is not None,
        cannot_know=_cannot_know(mapping, target, plan.creations),
        brakes=brakes,
    )
    counts: Counter[tuple[str, str]] = Counter()
    for some in plan.changes.chunks():
        changes = [change for _, change in some]
        known = [each for each in changes if not each.by_key]
        shown = present_values(asked, known) if asked else {}
        drifted = _to_heal(plan.connection, mapping.target, [change.record_id for change in known])
        for change in changes:
            record = _record(asked, change, shown.get(change.record_id), drifted.get(change.record_id, {}))
            counts.update((each.name, each.kind) for each in record.fields)
            done.drifted += sum(each.has_drifted for each in record.fields)
            done.not_there += not record.is_there
            if len(done.records) < limit:
                done.records.append(record)
    for (name, kind), records in sorted(counts.items()):
        done.kinds.setdefault(name, {})[kind] = records
    return done


def _cannot_know(mapping: SyncMapping, target: Target | None, creations: int) -> list[str]:
    if target is not None and target.can_read:
        return []
    guarded = [name for name, rule in mapping.fields.items() if rule.overwrite != "always"]
    unknown = [
        "what the CRM holds now: fields never told have no old value, and an edit made there is not seen"
    ]
    if creations and target is None and mapping.system != "webhook":
        unknown.append("whether the CRM has a record that bears the key of an account to be created")
    if guarded:
        unknown.append(f"whether {', '.join(guarded)} may be overwritten: that depends on what the CRM holds")
    if mapping.removal == "clear" and (target is None or target.can_read):
        unknown.append("whether what is to be cleared is still ours: that depends on what the CRM holds")
    return unknown


def _to_heal(connection: psycopg.Connection, target: str, record_ids: list[str]) -> dict[str, Shown]:
    """Return record id → field → what the CRM held when a reconciliation let it be told again; not yet told since."""
    rows = connection.execute(
        """
        select distinct on (drift.record_id, drift.field) drift.record_id, drift.field, drift.held
        from sync.drift
        inner join sync.reconciliations using (reconciliation_id)
        where drift.target = %(target)s and drift.record_id = any(%(records)s) and drift.done = 'healed'
            and not exists (
                select from sync.deliveries
                where deliveries.account_id = drift.account_id and deliveries.target = drift.target
                    and deliveries.record_id = drift.record_id and deliveries.field = drift.field
                    and deliveries.confirmed_at > reconciliations.reconciled_at
            )
        order by drift.record_id, drift.field, drift.reconciliation_id desc
        """,
        {"target": target, "records": record_ids},
    ).fetchall()
    found: dict[str, Shown] = {}
    for record_id, name, held in rows:
        found.setdefault(record_id, {})[name] = held
    return found


def _record(target: Target | None, change: Change, shown: Shown | None, drifted: Shown) -> RecordChange:
    if change.by_key:
        made = [FieldChange(name, None, new, "no", "create") for name, new in change.values.items()]
        return RecordChange(change.account_id, change.record_id, False, made, is_creation=True)
    fields = [_field(target, name, new, change, shown, drifted) for name, new in change.values.items()]
    is_there = target is None or shown is not None
    return RecordChange(change.account_id, change.record_id, change.is_removal, fields, is_there)


def _field(
    target: Target | None, name: str, new: str | None, change: Change, shown: Shown | None, drifted: Shown
) -> FieldChange:
    is_told, heals = name in change.old, name in drifted and name not in change.old
    kind = "cleared" if new is None else "changed" if is_told else "heal" if heals else "first"
    if target is None or shown is None:
        old = drifted[name] if heals else change.old.get(name)
        return FieldChange(name, old, new, "confirmed" if is_told else "reconciled" if heals else "no", kind)
    held = shown.get(name)
    return FieldChange(
        name,
        held,
        new,
        "read",
        "same" if target.is_same(new, held) else kind,
        is_told and not target.is_same(change.old[name], held),
    )
