"""Read back what the CRM confirmed, list what it no longer holds, and let the next sync heal it where that is the policy.

Records are read and compared some thousands at a time. What differs lies in a temporary table of the connection until all
were read, so that the memory of this process grows neither with the accounts nor with what they lost.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from include.errors import StratumError
from include.sources.config import Sources
from include.sync.asking import asking
from include.sync.ledger import Ledger
from include.sync.mapping import FieldRule, Reconcile, SyncMapping
from include.sync.run import mapping_of
from include.sync.target import Target
from include.sync.targets import open_target
from include.warehouse.connect import connect

log = logging.getLogger(__name__)
READ_AT_ONCE = 5_000
"""Records of the ledger in memory at a time, with what the CRM holds of them and what differs."""
SHOWN = 20
"""Differences that are returned, where not more are asked for."""
LEAST_ALL_GONE = 10
"""Records of which not one is there: that is another CRM, and no reason to forget them."""
COLUMNS = "record_id, account_id, field, confirmed, held, done"
# Empty, with the types that sync.drift has.
DRIFTED = f"""
drop table if exists pg_temp.drifted;
create temporary table drifted as select {COLUMNS} from sync.drift with no data
"""  # noqa: S608 - columns are this module's own

Done = Literal["reported", "healed", "not_kept", "gone"]
Told = dict[str, str | None]


@dataclass(frozen=True)
class Drift:
    """One field of one record: what the CRM had confirmed, what it holds now, and what was done about it."""

    record_id: str
    account_id: str
    field: str
    confirmed: str | None
    held: str | None
    done: Done


@dataclass
class Reconciliation:
    """What reading back found. records_read = equal + drifted + gone, which the database checks."""

    target: str
    policy: Literal["report", "heal"]
    seed: str
    sample: int | None
    fields: list[str]
    records_read: int = 0
    equal: int = 0
    drifted: int = 0
    gone: int = 0
    healed: int = 0
    """Records the next sync tells again."""
    left: int = 0
    """Records of which something differs and is not told again: listed, not kept by the CRM, or gone."""
    unresolved: int = 0
    """Records left out, as their last attempt has no answer: the next sync settles them."""
    calls: int = 0
    reconciliation_id: int = 0
    """Of its row in sync.reconciliations; all that differs stands in sync.drift under the same number."""
    kinds: dict[str, dict[Done, int]] = field(default_factory=dict)
    """Field → what was done → records."""
    drift: list[Drift] = field(default_factory=list)
    """The first of what differs, as many as were asked for."""

    @property
    def fields_left(self) -> list[str]:
        """Fields that differ in a record and are not told again."""
        return [name for name, kinds in self.kinds.items() if kinds.keys() - {"healed"}]

    @property
    def not_kept(self) -> list[str]:
        """Fields that lost a value again which had been healed: the CRM does not keep them."""
        return [name for name, kinds in self.kinds.items() if "not_kept" in kinds]


@dataclass(frozen=True)
class _Record:
    record_id: str
    account_id: str
    told: Told
    healed_before: Told
    """Values of fields that an earlier reconciliation let tell again."""


def reconcile(
    sources: Sources,
    name: str,
    *,
    sample: int | None = None,
    everything: bool = False,
    heal: bool = False,
    limit: int = SHOWN,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Reconciliation:
    """Compare the ledger of the target `name` with what it holds, and write down every difference.

    All of it is counted, and the first `limit` differences are returned.

    `sample` records are read, `everything`, or as many as sync.yml says. By the policy `report` a difference is listed.
    By `heal`, and with the argument of that name, the ledger forgets the value: the next sync sends what is published
    through its own brakes, attempts and overwrite rules. Nothing is sent here. Values of somebody else that a rule
    protects (if_empty, if_ours) are listed only; so is, but for the argument, a value that was healed before and is
    gone again. A record that is gone is forgotten by either policy.

    Raises StratumError where the target cannot be read, refuses to be, or holds none of the records;
    TransientError where it does not answer. Then nothing is written.
    """
    mapping = mapping_of(sources, name)
    with connect("syncer") as books, open_target(mapping, "syncer", clock, sleep) as target:
        books.autocommit = True
        if not target.can_read:
            raise StratumError(
                f"{target.name} cannot be asked what it holds, so '{name}' cannot be reconciled: it takes messages and "
                "answers no questions. What it took stands in sync.deliveries."
            )
        ledger = Ledger(books, mapping.target)
        ledger.lock()
        return reconcile_ledger(
            ledger, mapping, target, None if everything else sample or rules_of(mapping).sample, heal, limit
        )


def reconcile_ledger(
    ledger: Ledger,
    mapping: SyncMapping,
    target: Target,
    sample: int | None,
    heal: bool = False,
    limit: int = SHOWN,
) -> Reconciliation:
    """Reconcile a target that is open and whose ledger is locked; see `reconcile`. `sample` None reads all."""
    policy: Literal["report", "heal"] = "heal" if heal else rules_of(mapping).policy
    found = Reconciliation(ledger.target, policy, _seed(ledger), sample, list(mapping.fields))
    found.unresolved = _unresolved(ledger)
    calls = target.calls
    counts: Counter[tuple[str, Done]] = Counter()
    ledger.connection.execute(DRIFTED)
    for records in _pages(ledger, found):
        held = read_back(target, [each.record_id for each in records], found.fields)
        drift = [
            one
            for each in records
            for one in _compare(found, each, held.get(each.record_id), mapping, target, insists=heal)
        ]
        counts.update((each.field, each.done) for each in drift)
        found.drift += drift[: limit - len(found.drift)]
        _note(ledger, drift)
    assert_not_all_gone(target, found.records_read, found.gone)
    found.calls = target.calls - calls
    for (name, done), records_of in sorted(counts.items()):
        found.kinds.setdefault(name, {})[done] = records_of
    _write(ledger, found)
    log.info(
        "%s reconciled: %d read = %d equal + %d drifted + %d gone",
        found.target,
        found.records_read,
        found.equal,
        found.drifted,
        found.gone,
    )
    return found


def rules_of(mapping: SyncMapping) -> Reconcile:
    """Return by which rules a target is reconciled: the defaults where sync.yml has it on no schedule."""
    return mapping.reconcile or Reconcile()


def scheduled(sources: Sources) -> list[str]:
    """Return the targets that sync.yml wants reconciled on a schedule."""
    return [name for name, mapping in sources.sync.items() if mapping.reconcile]


def keep_watch(sources: Sources, name: str) -> None:
    """Reconcile a target as sync.yml says, and tell what drifted and is not healed: as a warning, or as an error.

    The books are written first either way. Raises StratumError where something is left and `on_drift` is fail, and
    as `reconcile` does.
    """
    found = reconcile(sources, name)
    if not found.left:
        return
    said = (
        f"{found.target} no longer holds what it confirmed of {found.left:,} of {found.records_read:,} records "
        f"({', '.join(found.fields_left)}). See sync.drift, or stratum sync status. To tell it again: stratum sync "
        f"reconcile {name} --heal"
    )
    if rules_of(mapping_of(sources, name)).on_drift == "fail":
        raise StratumError(said)
    log.warning(said)


def assert_not_all_gone(target: Target, asked: int, gone: int) -> None:
    """Raise StratumError where a target has not one of many records: it is another one than they were told to."""
    if gone == asked >= LEAST_ALL_GONE:
        raise StratumError(
            f"{target.name} has none of the {asked} records it was asked for: is the connection that of another "
            "account, or may its user not see them? Nothing was written."
        )


def _seed(ledger: Ledger) -> str:
    """Return what the sample is drawn by: the newest sync, so that each is followed by another sample."""
    row = ledger.connection.execute(
        "select coalesce(max(sync_id), 0) from sync.runs where target = %s", [ledger.target]
    ).fetchone()
    return str(row[0])  # type: ignore[index]


def _unresolved(ledger: Ledger) -> int:
    """Return how many records have an attempt without an answer."""
    row = ledger.connection.execute(
        "select count(distinct record_id) from sync.attempts where target = %s and status = 'open'",
        [ledger.target],
    ).fetchone()
    return row[0]  # type: ignore[index]


def _pages(ledger: Ledger, found: Reconciliation) -> Iterator[list[_Record]]:
    """Yield the records to be read: all in order of id, or a sample in order of their hashes with the seed."""
    order = "record_id" if found.sample is None else "md5(%(seed)s || record_id)"
    left, last = found.sample, ""
    while left is None or left > 0:
        size = READ_AT_ONCE if left is None else min(left, READ_AT_ONCE)
        rows = ledger.connection.execute(
            f"""
            select record_id, account_id, confirmed, {order} as place,
                coalesce((
                    select jsonb_object_agg(field, confirmed order by reconciliation_id) from sync.drift
                    where drift.target = ledger.target and drift.record_id = ledger.record_id and done = 'healed'
                ), '{{}}')
            from sync.ledger
            where target = %(target)s and confirmed ?| %(fields)s and {order} > %(last)s
                and not exists (
                    select from sync.attempts where attempts.target = ledger.target
                    and attempts.record_id = ledger.record_id and status = 'open'
                )
            order by {order} limit %(size)s
            """,  # noqa: S608
            {"seed": found.seed, "target": ledger.target, "fields": found.fields, "last": last, "size": size},
        ).fetchall()
        if not rows:
            return
        yield [
            _Record(
                record_id, account_id, {name: told[name] for name in found.fields if name in told}, before
            )
            for record_id, account_id, told, _, before in rows
        ]
        last = rows[-1][3]
        left = None if left is None else left - len(rows)


def read_back(target: Target, record_ids: list[str], fields: list[str]) -> dict[str, Told]:
    """Return record id → what the target holds, with errors for the user where it does not tell."""
    with asking(target, "what it holds", "Nothing was written."):
        return target.read(record_ids, fields)


def _compare(
    found: Reconciliation,
    record: _Record,
    held: Told | None,
    mapping: SyncMapping,
    target: Target,
    insists: bool,
) -> list[Drift]:
    """Count a record, and return the fields of which the CRM holds another value than it confirmed."""
    found.records_read += 1
    if held is None:
        found.gone += 1
        found.left += 1
        return [
            Drift(record.record_id, record.account_id, name, told, None, "gone")
            for name, told in record.told.items()
        ]
    drift = []
    for name, told in record.told.items():
        now = held.get(name) or None
        if target.is_same(told, now):
            continue
        done: Done = "reported"
        if found.policy == "heal" and not _is_protected(mapping.fields[name], now):
            # What a CRM does not keep would be told again after every reconciliation.
            is_lost_again = now is None and record.healed_before.get(name, "") == told
            done = "not_kept" if is_lost_again and not insists else "healed"
        drift.append(Drift(record.record_id, record.account_id, name, told, now, done))
    found.drifted += bool(drift)
    found.equal += not drift
    found.healed += any(each.done == "healed" for each in drift)
    found.left += any(each.done != "healed" for each in drift)
    return drift


def _is_protected(rule: FieldRule, held: str | None) -> bool:
    """Tell whether what the field holds is somebody's whom the overwrite rule protects."""
    return rule.overwrite != "always" and held is not None


def _note(ledger: Ledger, drift: list[Drift]) -> None:
    """Put what differs into the temporary table."""
    with (
        ledger.connection.cursor() as cursor,
        cursor.copy(f"copy pg_temp.drifted ({COLUMNS}) from stdin") as copy,
    ):
        for each in drift:
            copy.write_row(
                (each.record_id, each.account_id, each.field, each.confirmed, each.held, each.done)
            )


def _write(ledger: Ledger, found: Reconciliation) -> None:
    """Write the reconciliation and its drift, and take from the ledger what it must forget, all or nothing."""
    with ledger.connection.transaction(), ledger.connection.cursor() as cursor:
        row = cursor.execute(
            "insert into sync.reconciliations (target, policy, seed, sample, records_read, equal, drifted, gone, "
            "unresolved, fields, calls) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
            "returning reconciliation_id",
            [
                found.target,
                found.policy,
                found.seed,
                found.sample,
                found.records_read,
                found.equal,
                found.drifted,
                found.gone,
                found.unresolved,
                found.fields,
                found.calls,
            ],
        ).fetchone()
        found.reconciliation_id = row[0]  # type: ignore[index]
        cursor.execute(
            f"insert into sync.drift (reconciliation_id, target, {COLUMNS}) "  # noqa: S608
            f"select %s, %s, {COLUMNS} from pg_temp.drifted",
            [found.reconciliation_id, found.target],
        )
        _forget(cursor, found.target, found.reconciliation_id)


def _forget(cursor: psycopg.Cursor, target: str, reconciliation_id: int) -> None:
    cursor.execute(
        "update sync.ledger set confirmed = ledger.confirmed - healed.fields "
        "from (select record_id, array_agg(field) as fields from sync.drift "
        "where reconciliation_id = %s and done = 'healed' group by record_id) as healed "
        "where ledger.target = %s and ledger.record_id = healed.record_id",
        [reconciliation_id, target],
    )
    cursor.execute(
        "update sync.ledger set confirmed = '{}', gone_at = clock_timestamp() "
        "where target = %s and record_id in "
        "(select record_id from sync.drift where reconciliation_id = %s and done = 'gone')",
        [target, reconciliation_id],
    )
