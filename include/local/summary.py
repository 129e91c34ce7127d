"""What a run did, in numbers read from the warehouse: nothing here is remembered from the run itself."""

from datetime import date
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.errors import StratumError
from include.warehouse.connect import connect

HISTORY_TIERS = (
    "select tier, count(*) as accounts, count(*) / sum(count(*)) over () as actual_share "
    "from published.account_tiers where as_of_date = %s group by tier order by position(tier in 'SABC')"
)

AT_RISK = 10
# Worth of a call: what is likely to be lost of a year's net revenue. Long-gone accounts are left to the win-back list.
MOST_AT_RISK = (
    "select account_id, account_name, tier, churn_probability, "
    "greatest(net_revenue_365d, 0) as net_revenue_365d, currency, days_since_last_order, "
    "churn_definition, churn_reason_1, churn_reason_2, churn_reason_3, next_action, "
    "(parameters ->> 'active_days')::int as active_days "
    "from published.customer_360 inner join ml.models on churn_model_id = model_id "
    "where run_id = %s and days_since_last_order < (parameters ->> 'active_days')::int "
    "order by churn_probability * greatest(net_revenue_365d, 0) desc, account_id limit %s"
)

LISTS = (
    "select list, count(*) as rows from published.operating_list where run_id = %s "
    "group by list, priority order by priority, list"
)


def summarise(as_of: date) -> dict[str, Any]:
    """Return the newest run of a date: its loads, quarantine reasons, tiers, gates and sync.

    Raises StratumError where the date was never published.
    """
    with connect("auditor") as connection:
        connection.row_factory = dict_row  # type: ignore[assignment]
        run = _one(
            connection,
            "select run_id, as_of_date, action, published_at from audit.publishes "
            "where as_of_date = %s and action in ('publish', 'history') order by publish_id desc limit 1",
            as_of,
        )
        if run is None:
            raise StratumError(f"Nothing was published for {as_of}. Run it: stratum run --as-of {as_of}")
        loads = _all(
            connection,
            "select distinct on (source, entity) * from audit.loads where as_of_date = %s "
            "and status in ('loaded', 'absent') order by source, entity, load_seq desc",
            as_of,
        )
        replays = _all(
            connection,
            "select * from audit.loads where as_of_date = %s and status = 'replayed' order by load_seq",
            as_of,
        )
        return {
            "run_id": run["run_id"],
            "as_of_date": as_of,
            "is_newest": run["action"] == "publish",
            "loads": [_load(connection, load) for load in [*loads, *replays]],
            "tiers": _published(connection, "tier_summary", run)
            if run["action"] == "publish"
            else _all(connection, HISTORY_TIERS, as_of),
            "company": _published(connection, "company_summary", run) if run["action"] == "publish" else [],
            "gates": _all(
                connection,
                "select gate, count(*) as checks, "
                "count(*) filter (where not success and arguments ->> 'severity' is distinct from 'warning') as failed, "
                "count(*) filter (where not success and arguments ->> 'severity' = 'warning') as warnings "
                "from audit.checks where run_id = %s group by gate order by min(check_id)",
                run["run_id"],
            ),
            "scores": _one(
                connection,
                "select status, model_id, reason, accounts from ml.runs where run_id = %s and model = 'churn'",
                run["run_id"],
            ),
            "other_scores": _all(
                connection,
                "select model, definition, status, model_id, reason, accounts from ml.runs "
                "where run_id = %s and model <> 'churn' order by model",
                run["run_id"],
            ),
            "at_risk": _all(connection, MOST_AT_RISK, run["run_id"], AT_RISK)
            if run["action"] == "publish"
            else [],
            "lists": _all(connection, LISTS, run["run_id"]) if run["action"] == "publish" else [],
            "syncs": _syncs(connection, run["run_id"]),
        }


def _syncs(connection: psycopg.Connection, run_id: str) -> list[dict[str, Any]]:
    """Return the newest sync of the run to each target, with its reasons and what it is held or switched off for.

    `waiting_hold_id` is the hold that waits for an answer, None where none does.
    """
    syncs = _all(
        connection,
        "select distinct on (runs.target) runs.sync_id, runs.target, runs.status, queried, sent, unchanged, failed, held, "
        "calls, failure, holds.hold_id as waiting_hold_id from sync.runs "
        "left join sync.holds on holds.hold_id = runs.hold_id and holds.status = 'waiting' "
        "and holds.expires_at > clock_timestamp() "
        "where runs.run_id = %s and finished_at is not null order by runs.target, runs.sync_id desc",
        run_id,
    )
    for sync in syncs:
        reasons = _all(
            connection,
            "select reason, count(*) as rows from sync.outcomes where sync_id = %s group by reason order by 2 desc, 1",
            sync["sync_id"],
        )
        sync["reasons"] = {reason["reason"]: reason["rows"] for reason in reasons}
    return syncs


def _load(connection: psycopg.Connection, load: dict[str, Any]) -> dict[str, Any]:
    reasons = _all(
        connection,
        "select reason, rows from audit.load_reasons where load_id = %s order by rows desc, reason",
        load["load_id"],
    )
    kept = load["rows_new"] + load["rows_corrected"] + load["rows_unchanged"]
    numbers = {key: value for key, value in load.items() if key.startswith("rows_")}
    return {
        "source": load["source"],
        "entity": load["entity"],
        "status": load["status"],
        "rows_kept": kept,
        **numbers,
        "reasons": {reason["reason"]: reason["rows"] for reason in reasons},
        "column_changes": _all(
            connection,
            "select column_name, change, type_before, type_now from audit.column_changes where load_id = %s "
            "order by change, column_name",
            load["load_id"],
        ),
    }


def _published(connection: psycopg.Connection, table: str, run: dict[str, Any]) -> list[dict[str, Any]]:
    rows = _all(connection, f"select * from published.{table} where run_id = %s", run["run_id"])  # noqa: S608
    return sorted(rows, key=lambda row: "SABC".find(row.get("tier") or " "))


def _all(connection: psycopg.Connection, query: str, *arguments: object) -> list[dict[str, Any]]:
    return connection.execute(query, arguments).fetchall()  # type: ignore[return-value]


def _one(connection: psycopg.Connection, query: str, *arguments: object) -> dict[str, Any] | None:
    rows = _all(connection, query, *arguments)
    return rows[0] if rows else None


def lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary as lines for a terminal."""
    shown = [f"As of {summary['as_of_date']}, run {summary['run_id']}", "", "Rows"]
    for load in summary["loads"]:
        if load["status"] != "absent":
            shown += _load_lines(f"  {load['source'] + '.' + load['entity']:<30}", load)
    absent = [f"{load['source']}.{load['entity']}" for load in summary["loads"] if load["status"] == "absent"]
    if absent:
        shown.append(f"  absent, since not configured: {', '.join(absent)}")
    shown += ["", "Tiers      accounts   share  target   action"]
    for tier in summary["tiers"]:
        target = f"{tier['target_share']:>5.1%}   {tier['action']}" if "target_share" in tier else ""
        shown.append(
            f"  {tier['tier']}        {tier['accounts']:>8,}  {tier['actual_share']:>5.1%}  {target}"
        )
    if any("target_share" in tier for tier in summary["tiers"]):
        shown.append(
            "  A share off its target is no fault: S, A and B were cut by theirs as the quarter began and have moved since "
            "(stratum tiers list); C is who is dormant, however few"
        )
    for company in summary["company"]:
        shown.append(
            f"  {company['accounts']:,} accounts = {company['accounts_ordered']:,} that have ordered, in tiers + "
            f"{company['accounts'] - company['accounts_ordered']:,} known to the CRM alone; "
            f"C is what is dormant: {company['accounts_dormant']:,}"
        )
    shown += _score_lines(summary)
    if summary["lists"]:
        counts = ", ".join(f"{each['list']} {each['rows']:,}" for each in summary["lists"])
        shown += ["", "Lists", f"  {counts}  (stratum lists NAME)"]
    shown += ["", "Gates"]
    shown += [
        f"  {gate['gate']:<10} {gate['checks']} checks, {gate['failed']} failed"
        + (f", {gate['warnings']} warned: the pages of the gates say of what" if gate["warnings"] else "")
        for gate in summary["gates"]
    ]
    shown += ["", "CRM"]
    for sync in summary["syncs"]:
        shown.append(
            f"  {sync['target']}: {sync['queried']:,} queried = {sync['sent']:,} sent and confirmed by the CRM + "
            f"{sync['unchanged']:,} unchanged or nothing to tell + {sync['failed']:,} failed + {sync['held']:,} held "
            f"({sync['calls']:,} calls)"
        )
        shown += [f"    {rows:>9,} {reason}" for reason, rows in sync["reasons"].items()]
        if sync["failure"]:
            shown.append(
                f"    {'nothing was sent' if sync['status'] == 'held' else 'broken off'}: {sync['failure']}"
            )
        if hold_id := sync["waiting_hold_id"]:
            shown.append(
                f"    to send it: stratum sync approve --hold {hold_id} --reason TEXT  (or reject likewise)"
            )
    if summary["syncs"]:
        return shown
    if summary["is_newest"]:
        shown.append("  nothing was told: no sync target is configured, or none could be begun with")
    else:
        shown.append(
            "  not told: a newer date is published; this one went into the history, published.account_tiers"
        )
    return shown


def _load_lines(name: str, load: dict[str, Any]) -> list[str]:
    notes = [
        f"; {load[column]:,} {what}"
        for column, what in (
            ("rows_unattributed", "name no customer"),
            ("rows_later", "dated later, left for their day"),
            ("rows_replayed", "of the quarantined replayed since"),
        )
        if load[column]
    ]
    replay = " replayed:" if load["status"] == "replayed" else ""
    shown = [
        f"{name}{replay} {load['rows_in']:,} in = {load['rows_kept']:,} kept + {load['rows_quarantined']:,} quarantined"
        f"  (kept: {load['rows_new']:,} new, {load['rows_corrected']:,} corrected, "
        f"{load['rows_unchanged']:,} unchanged{''.join(notes)})"
    ]
    shown += [f"    {rows:>9,} {reason}" for reason, rows in load["reasons"].items()]
    for column in load["column_changes"]:
        types = " from {type_before} to {type_now}".format(**column) if column["change"] == "retyped" else ""
        shown.append(f"              column '{column['column_name']}' is {column['change']}{types}")
    return shown


def _score_lines(summary: dict[str, Any]) -> list[str]:
    scores = summary["scores"]
    shown = ["", "Churn"]
    if scores is None or scores["status"] == "absent":
        why = scores["reason"] if scores else "the run was scored by no model"
        return [*shown, f"  absent: {why}", *_other_score_lines(summary)]
    shown.append(f"  {_told(scores)}")
    if summary["at_risk"]:
        days = summary["at_risk"][0]["active_days"]
        shown.append(
            f"  Of those that bought in the last {days} days, under contract or not, the most at risk "
            "(probability × net revenue of 365 days):"
        )
    for account in summary["at_risk"]:
        name = (
            f"{account['account_name']} ({account['account_id']})"
            if account["account_name"]
            else account["account_id"]
        )
        risk = (
            "whose contract may lapse"
            if account["churn_definition"] == "contract lapse"
            else "who may not order again"
        )
        at_risk = account["churn_probability"] * account["net_revenue_365d"]
        shown.append(
            f"  {at_risk:>14,.2f} {account['currency']} = {account['churn_probability']:.1%} of "
            f"{account['net_revenue_365d']:,.2f}  tier {account['tier']}  {name}, {risk}: "
            f"{account['next_action']}"
        )
        shown += [f"            {account[f'churn_reason_{place}']}" for place in (1, 2, 3)]
    return shown + _other_score_lines(summary)


def _other_score_lines(summary: dict[str, Any]) -> list[str]:
    shown = []
    for scores in summary["other_scores"]:
        shown += ["", scores["model"].capitalize(), f"  {scores['definition']}: {_told(scores)}"]
    return shown


def _told(scores: dict[str, Any]) -> str:
    if scores["status"] == "absent":
        return f"absent: {scores['reason']}"
    return f"{scores['accounts']:,} accounts scored by {scores['model_id']}"
