"""Which id of which system is which account: what is known, what is open, and what people decide about it.

What is known and open is what the last build made of the sources (schema `identity`); decisions are rows of
identity.decisions, which are never changed, and which the next build obeys.
"""

import getpass
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.errors import StratumError
from include.warehouse.connect import connect

UNDO = "stratum sources identities undo {} --why TEXT"


@dataclass
class Identities:
    """What is known: ids by system and rule, excluded accounts, decisions in force; and what is open."""

    counts: list[dict[str, Any]] = field(default_factory=list)
    """source_system, matched_by, ids."""
    not_in_crm: int = 0
    """Customers of the orders that no CRM knows; no fault: the sync holds them as not_in_crm."""
    excluded: list[dict[str, Any]] = field(default_factory=list)
    """account_id, since (None: from the beginning), internal_by."""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """Rows of identity.decisions that are in force."""
    open_counts: list[dict[str, Any]] = field(default_factory=list)
    """state, kind, ids."""
    open: list[dict[str, Any]] = field(default_factory=list)
    """Rows of identity.int_identity_issues."""


def show_identities(kind: str | None, limit: int) -> Identities:
    """Return what the last build made of identities, and up to `limit` open ones of a kind (or a state).

    Raises StratumError where nothing is built, or where there is no such kind.
    """
    with _reading() as connection:
        rows = connection.cursor(row_factory=dict_row)
        found = Identities(
            counts=rows.execute(
                "select source_system, matched_by, count(*) as ids from identity.int_account_crosswalk "
                "where valid_until_date is null group by 1, 2 order by 1, 2"
            ).fetchall(),
            excluded=rows.execute(
                "select account_id, min(valid_from_date) as since, min(internal_by) as internal_by "
                "from identity.int_account_crosswalk where is_internal and valid_until_date is null "
                "group by account_id order by account_id"
            ).fetchall(),
            decisions=rows.execute(
                "select * from identity.decisions_in_force order by decision_id"
            ).fetchall(),
            open_counts=rows.execute(
                "select state, kind, count(*) as ids from identity.int_identity_issues group by 1, 2 order by 1, 2"
            ).fetchall(),
            open=rows.execute(
                "select * from identity.int_identity_issues where %(kind)s::text is null or %(kind)s in (kind, state) "
                "order by state, kind, source_system, source_account_id limit %(limit)s",
                {"kind": kind, "limit": limit},
            ).fetchall(),
        )
        not_in_crm = connection.execute(
            "select count(distinct account_id) from identity.int_account_crosswalk as customer "
            "where source_system = 'orders' and valid_until_date is null and not is_internal and not exists ("
            "select from identity.int_account_crosswalk as company where company.account_id = customer.account_id "
            "and company.source_system not in ('orders', 'behavior') and company.valid_until_date is null)"
        ).fetchone()
    found.not_in_crm = not_in_crm[0] if not_in_crm else 0
    known = {each[name] for each in found.open_counts for name in ("state", "kind")}
    if kind is not None and kind not in known:
        told = f"what is open is of the kinds {', '.join(sorted(known))}" if known else "nothing is open"
        raise StratumError(f"No open identity is of the kind '{kind}': {told}.")
    return found


def link(system: str, source_id: str, account: str, why: str) -> int:
    """Decide that an id of a CRM or of behavior is an account, on every date; return the decision's id.

    Raises StratumError where the id or the account is not known, or a decision in force says otherwise.
    """
    with _deciding(why) as connection:
        _assert_not_orders(
            system, "stratum sources identities merge ACCOUNT --into ACCOUNT --from DATE --why TEXT"
        )
        mapped = _account_of(connection, system, source_id)
        _assert_undecided(connection, system, source_id)
        _assert_account(connection, account)
        if mapped == account:
            raise StratumError(f"{system} {source_id} is account {account} already.")
        return _write(
            connection,
            why,
            action="link",
            source_system=system,
            source_account_id=source_id,
            account_id=account,
        )


def separate(system: str, source_id: str, why: str) -> int:
    """Decide that an id is an account of its own, whatever its number, a rule or a source's merge says; return its id.

    Raises StratumError where the id is not known, is separate already, or a decision in force says otherwise.
    """
    with _deciding(why) as connection:
        mapped = _account_of(connection, system, source_id)
        _assert_undecided(connection, system, source_id)
        own = source_id if system == "orders" else f"{system}:{source_id}"
        if mapped == own:
            raise StratumError(f"{system} {source_id} is an account of its own already: {own}.")
        if system == "orders" and (decided := _decided_merge(connection, source_id)):
            raise StratumError(
                f"{source_id} is part of {mapped} by decision {decided}: {UNDO.format(decided)} takes it back."
            )
        return _write(connection, why, action="separate", source_system=system, source_account_id=source_id)


def merge(account: str, into: str, since: date, why: str) -> int:
    """Decide that an account is part of another from a date on; return the decision's id.

    Raises StratumError where one is not known, where a number would give way to a CRM record, where the account was
    merged by a decision before, or where merges lead from the other one back to it.
    """
    with _deciding(why) as connection:
        for each in (account, into):
            _assert_account(connection, each, may_be_merged=True)
        if account == into:
            raise StratumError(f"{account} cannot be merged into itself.")
        if decided := _decided_merge(connection, account):
            raise StratumError(
                f"Decision {decided} has merged {account} before: {UNDO.format(decided)} comes first."
            )
        if _is_record(connection, into) and not _is_record(connection, account):
            raise StratumError(
                f"{account} is a customer number and {into} is none: merge {into} into {account}."
            )
        if account in _leads_to(connection, into):
            raise StratumError(
                f"{into} is part of {account} by earlier merges: the two cannot be merged both ways."
            )
        return _write(
            connection, why, action="merge", account_id=account, into_account_id=into, effective_from=since
        )


def exclude(account: str, why: str, since: date | None = None) -> int:
    """Decide that an account is internal, from a date on or always; return the decision's id.

    Raises StratumError where it is not known, or excluded already.
    """
    with _deciding(why) as connection:
        _assert_account(connection, account)
        row = connection.execute(
            "select min(internal_by) from identity.int_account_crosswalk "
            "where account_id = %s and is_internal and valid_until_date is null",
            [account],
        ).fetchone()
        if row and row[0]:
            raise StratumError(f"{account} is excluded already, by {row[0]}.")
        decided = connection.execute(
            "select decision_id from identity.decisions_in_force where action = 'exclude' and account_id = %s",
            [account],
        ).fetchone()
        if decided:
            raise StratumError(
                f"Decision {decided[0]} excludes {account}; it takes effect with the next build."
            )
        return _write(connection, why, action="exclude", account_id=account, effective_from=since)


def undo(decision_id: int, why: str) -> int:
    """Take a decision back; return the id of the row that does. Raises StratumError where none in force has that id."""
    with _deciding(why) as connection:
        row = connection.execute(
            "select action, (select undoing.decision_id from identity.decisions as undoing "
            "where undoing.undoes = decision.decision_id) "
            "from identity.decisions as decision where decision_id = %s",
            [decision_id],
        ).fetchone()
        if row is None:
            raise StratumError(
                f"There is no decision {decision_id}: `stratum sources identities` lists them."
            )
        if row[0] == "undo":
            raise StratumError(f"Decision {decision_id} takes another one back: decide anew instead.")
        if row[1] is not None:
            raise StratumError(f"Decision {decision_id} was taken back before, by {row[1]}.")
        return _write(connection, why, action="undo", undoes=decision_id)


@contextmanager
def _reading() -> Any:
    with connect("housekeeper") as connection:
        row = connection.execute("select to_regclass('identity.int_identity_issues') is null").fetchone()
        if row and row[0]:
            raise StratumError(
                "No identities yet: they are made by a build. Run a date: stratum run --as-of DATE"
            )
        yield connection


@contextmanager
def _deciding(why: str) -> Any:
    """Give a transaction in which nobody else decides."""
    if not why.strip():
        raise StratumError("A decision needs its reason: --why TEXT.")
    with _reading() as connection, connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtext('identity.decisions'))")
        yield connection


def _write(connection: psycopg.Connection, why: str, **values: Any) -> int:
    columns = [*values, "why", "decided_by"]
    row = connection.execute(
        f"insert into identity.decisions ({', '.join(columns)}) "  # noqa: S608 (the names are ours)
        f"values ({', '.join(['%s'] * len(columns))}) returning decision_id",
        [*values.values(), why.strip(), getpass.getuser()],
    ).fetchone()
    assert row is not None  # noqa: S101 (an insert that returns has a row)
    return row[0]


def _assert_not_orders(system: str, instead: str) -> None:
    if system == "orders":
        raise StratumError(
            f"A customer of the orders is the account of its number. To make two of them one: {instead}"
        )


def _account_of(connection: psycopg.Connection, system: str, source_id: str) -> str:
    """Return the account an id stands for today. Raises StratumError where no system or no id is of that name."""
    row = connection.execute(
        "select account_id from identity.int_account_crosswalk "
        "where source_system = %s and source_account_id = %s and valid_until_date is null",
        [system, source_id],
    ).fetchone()
    if row is None:
        systems = connection.execute(
            "select distinct source_system from identity.int_account_crosswalk order by 1"
        ).fetchall()
        names = ", ".join(name for (name,) in systems)
        raise StratumError(f"No id {source_id} of {system} is known; the systems are {names}.")
    return row[0]


def _assert_account(connection: psycopg.Connection, account: str, may_be_merged: bool = False) -> None:
    rows = connection.execute(
        "select valid_until_date is null from identity.int_account_crosswalk where account_id = %s", [account]
    ).fetchall()
    if not rows:
        raise StratumError(
            f"No account {account} is known. An account is a customer number or <system>:<record id>."
        )
    if not may_be_merged and not any(stands for (stands,) in rows):
        raise StratumError(f"{account} was merged away, or has a number now: decide about that account.")


def _assert_undecided(connection: psycopg.Connection, system: str, source_id: str) -> None:
    row = connection.execute(
        "select decision_id, action from identity.decisions_in_force "
        "where source_system = %s and source_account_id = %s order by decision_id desc limit 1",
        [system, source_id],
    ).fetchone()
    if row:
        raise StratumError(
            f"Decision {row[0]} ({row[1]}) is about {system} {source_id} already: {UNDO.format(row[0])} comes first."
        )


def _decided_merge(connection: psycopg.Connection, account: str) -> int | None:
    row = connection.execute(
        "select decision_id from identity.decisions_in_force where action = 'merge' and account_id = %s",
        [account],
    ).fetchone()
    return row[0] if row else None


def _is_record(connection: psycopg.Connection, account: str) -> bool:
    """Tell whether an account is named by a record of a CRM (or a tenant), not by a customer number."""
    row = connection.execute(
        "select exists (select from identity.int_account_crosswalk "
        "where account_id = %s and account_id = source_system || ':' || source_account_id)",
        [account],
    ).fetchone()
    return bool(row and row[0])


def _leads_to(connection: psycopg.Connection, account: str) -> set[str]:
    """Return the accounts that merges lead to from an account: as built, and by decisions since."""
    rows = connection.execute(
        "with recursive edges as (select account_id, into_account_id from identity.int_account_merges "
        "where verdict = 'merged' union select account_id, into_account_id from identity.decisions_in_force "
        "where action = 'merge'), reached as (select into_account_id from edges where account_id = %s "
        "union select edges.into_account_id from reached join edges on edges.account_id = reached.into_account_id) "
        "select into_account_id from reached",
        [account],
    ).fetchall()
    return {name for (name,) in rows}
