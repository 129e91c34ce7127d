"""How each target stands, and its switch."""

from collections.abc import Iterable
from typing import Any, LiteralString

from psycopg.rows import dict_row

from include.errors import StratumError
from include.warehouse.connect import connect

LAST_RUN = """
select sync_id, run_id, as_of_date, status, queried, sent, unchanged, failed, held, calls, failure,
    started_at, finished_at
from sync.runs where target = %s order by sync_id desc limit 1"""
OPEN_ATTEMPTS = "select count(*) as rows from sync.attempts where target = %s and status = 'open'"
DEAD_LETTERS = """
select reason, count(*) as rows from sync.dead_letters where target = %s group by reason order by rows desc, reason"""
# One that nobody answered in time waits no more, though no sync has closed it yet.
WAITING = """
select hold_id, run_id, as_of_date, to_send, reasons, opened_at, expires_at from sync.holds
where target = %s and status = 'waiting' and expires_at > clock_timestamp()"""
RECONCILED = """
select reconciliation_id, reconciled_at, policy, sample, records_read, equal, drifted, gone from sync.reconciliations
where target = %s order by reconciliation_id desc limit 1"""
DRIFT = """
select field, done, count(*) as records from sync.drift
where reconciliation_id = (select max(reconciliation_id) from sync.reconciliations where target = %s)
group by field, done order by field, done"""
LEFT = """
select target, count(*) from sync.ledger where confirmed <> '{}' and target <> all(%s::text[])
group by target order by target"""
SWITCH = "select switched_by, reason, switched_at from sync.switches where target = %s"
TARGETS = "select target from sync.runs union select target from sync.switches order by target"


def switch_off(target: str, by: str, reason: str) -> None:
    """Let nothing more be sent to a target: a sync that runs stops before its next batch. Said again, the reason is new."""
    with connect("syncer") as connection:
        connection.execute(
            "insert into sync.switches (target, switched_by, reason) values (%s, %s, %s) on conflict (target) "
            "do update set switched_by = excluded.switched_by, reason = excluded.reason, "
            "switched_at = clock_timestamp()",
            [target, by, reason],
        )


def switch_on(target: str) -> None:
    """Let a target be told again. Raises StratumError where it is on."""
    with connect("syncer") as connection:
        row = connection.execute("delete from sync.switches where target = %s returning target", [target])
        if row.fetchone() is None:
            raise StratumError(f"{target} is not switched off.")


def known_targets() -> list[str]:
    """Return every target that was synced or switched off once."""
    with connect("auditor") as connection:
        return [target for (target,) in connection.execute(TARGETS).fetchall()]


def left_targets(named: Iterable[str]) -> dict[str, int]:
    """Return each target of which the ledger says what it holds and that is not among the `named`, with its records.

    Nobody tells it any more: what was told stays there as it was.
    """
    with connect("auditor") as connection:
        return dict(connection.execute(LEFT, [list(named)]).fetchall())


def status_of(target: str) -> dict[str, Any]:
    """Return how a target stands.

    It has `last` run, `reconciled` (the newest reading back), `hold` that waits and `switch` where it is off (None
    each where there is none), `open_attempts`, `dead_letters` by reason, and `drift` of that reading by field.
    """
    with connect("auditor") as connection, connection.cursor(row_factory=dict_row) as cursor:

        def one(query: LiteralString) -> dict[str, Any] | None:
            return cursor.execute(query, [target]).fetchone()

        attempts = one(OPEN_ATTEMPTS)
        return {
            "target": target,
            "switch": one(SWITCH),
            "last": one(LAST_RUN),
            "hold": one(WAITING),
            "open_attempts": attempts["rows"] if attempts else 0,
            "dead_letters": cursor.execute(DEAD_LETTERS, [target]).fetchall(),
            "reconciled": one(RECONCILED),
            "drift": cursor.execute(DRIFT, [target]).fetchall(),
        }


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return how a target stands as lines for a terminal."""
    last, hold, switch, letters = (
        status["last"],
        status["hold"],
        status["switch"],
        status["dead_letters"],
    )
    shown = [f"{status['target']}: " + (_last_line(last) if last else "no sync yet")]
    if last and last["failure"] and not (hold and last["status"] == "held"):  # a hold says it itself
        shown.append(f"  {last['failure']}")
    if switch:
        shown.append(
            f"  switched off by {switch['switched_by']} at {switch['switched_at']:%Y-%m-%d %H:%M %Z}: {switch['reason']} "
            "(stratum sync start)"
        )
    if hold:
        shown.append(
            f"  hold {hold['hold_id']} of {hold['as_of_date']} waits until {hold['expires_at']:%Y-%m-%d %H:%M %Z}, "
            f"{hold['to_send']:,} records to send (stratum sync approve, stratum sync reject)"
        )
        shown += [f"    {reason['brake']}: {reason['says']}" for reason in hold["reasons"]]
    dead = sum(letter["rows"] for letter in letters)
    shown.append(f"  {dead:,} dead letters, {status['open_attempts']:,} attempts without an answer")
    shown += [f"    {letter['rows']:>9,} {letter['reason']}" for letter in letters]
    if read := status["reconciled"]:
        shown.append(
            f"  reconciled at {read['reconciled_at']:%Y-%m-%d %H:%M %Z} by {read['policy']}: {read['records_read']:,} "
            f"records read = {read['equal']:,} equal + {read['drifted']:,} drifted + {read['gone']:,} gone"
        )
        shown += [f"    {each['records']:>9,} {each['field']} {each['done']}" for each in status["drift"]]
    return shown


def _last_line(last: dict[str, Any]) -> str:
    return (
        f"as of {last['as_of_date']} {last['status']}: {last['queried']:,} queried = {last['sent']:,} sent + "
        f"{last['unchanged']:,} unchanged + {last['failed']:,} failed + {last['held']:,} held"
    )
