"""What readers see moves as one, at once, and back again; what is not the run's own is refused."""

import threading
from contextlib import nullcontext
from datetime import date, timedelta

import psycopg
import pytest
from typer.testing import CliRunner

from include.cli import app
from include.commands import lists as command
from include.errors import StratumError
from include.warehouse import publish as publishing
from include.warehouse.connect import connect
from include.warehouse.lists import list_counts, one_list
from include.warehouse.lock import begin_run, finish_run
from include.warehouse.publish import ALL_TABLES, PublishBusy, Published, list_runs, publish, rollback
from include.warehouse.retention import drop_old_runs
from tests.conftest import Warehouse
from tests.fixtures.candidates import make_candidate

DAY = date(2026, 6, 30)
NEXT = date(2026, 7, 1)
BEFORE = date(2026, 5, 31)

WHOLE_SET = """
select customers.run_id, customers.accounts, tiers.accounts, company.accounts_ordered, customers.runs, tiers.runs
from (select max(run_id) as run_id, count(distinct run_id) as runs,
             count(*) filter (where has_ordered) as accounts from published.customer_360) customers
cross join (select max(run_id) as run_id, count(distinct run_id) as runs, sum(accounts) as accounts
            from published.tier_summary) tiers
join published.company_summary company
  on company.run_id = customers.run_id and company.run_id = tiers.run_id
"""


def publish_day(as_of: date, accounts: int = 20, tier_of_first: str = "S") -> Published:
    """Build nothing, but go through a whole run: lock, candidate, publish, release."""
    run_id = begin_run(as_of, wait_s=0)
    make_candidate(run_id, as_of, accounts, tier_of_first)
    done = publish(run_id, as_of)
    finish_run(run_id)
    return done


def current(warehouse: Warehouse) -> tuple:
    (row,) = warehouse.rows("select run_id, as_of_date from published.current_run")
    return row


def history(warehouse: Warehouse) -> dict[date, str]:
    return dict(warehouse.rows("select distinct as_of_date, run_id from published.account_tiers"))


def test_the_first_publish_makes_the_views_and_every_reader_reads_them(warehouse: Warehouse) -> None:
    done = publish_day(DAY, accounts=20)
    assert done.moved_pointer
    assert set(done.rows) == set(ALL_TABLES)
    counts = {"customer_360": 21, "tier_summary": 4, "company_summary": 1, "account_tiers": 20}
    assert done.rows.items() >= counts.items()
    for role in ("bi_reader", "syncer", "auditor"):
        with connect(role) as connection:
            for table in ALL_TABLES:
                row = connection.execute(f"select count(*), min(run_id) from published.{table}").fetchone()
                assert row == (done.rows[table], done.run_id)
    assert warehouse.rows("select run_id, action, rows from audit.publishes") == [
        (done.run_id, "publish", done.rows)
    ]
    assert warehouse.value("select status from audit.runs where finished_at is not null") == "published"


@pytest.mark.parametrize("role", ["bi_reader", "syncer", "auditor", "transformer", "loader", "scorer"])
def test_nobody_reads_the_tables_behind_the_views(warehouse: Warehouse, role: str) -> None:
    publish_day(DAY)
    for table in ALL_TABLES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connect(role) as connection:
            connection.execute(f"select * from published.{table}_by_run")


def test_published_columns_and_types_are_those_of_the_candidate(warehouse: Warehouse) -> None:
    publish_day(DAY)
    columns = (
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = %s::regclass and attnum > 0 order by attnum"
    )
    for table in ALL_TABLES:
        assert warehouse.rows(columns, f"published.{table}") == warehouse.rows(columns, f"candidate.{table}")


def test_a_newer_date_moves_the_pointer_and_keeps_the_history(warehouse: Warehouse) -> None:
    first, second = publish_day(DAY, 20), publish_day(NEXT, 24)
    assert current(warehouse) == (second.run_id, NEXT)
    assert warehouse.value("select count(*) from published.customer_360") == 25
    assert history(warehouse) == {DAY: first.run_id, NEXT: second.run_id}


def test_an_older_date_fills_the_history_and_leaves_the_pointer(warehouse: Warehouse) -> None:
    newest = publish_day(DAY, 20)
    older = publish_day(BEFORE, 8)
    assert (older.moved_pointer, older.rows) == (False, {"account_tiers": 8})
    assert current(warehouse) == (newest.run_id, DAY)
    assert warehouse.value("select count(*) from published.customer_360") == 21
    assert history(warehouse) == {BEFORE: older.run_id, DAY: newest.run_id}
    assert warehouse.rows("select action from audit.publishes order by publish_id") == [
        ("publish",),
        ("history",),
    ]
    assert [run.run_id for run in list_runs()] == [newest.run_id]


def test_publishing_a_date_again_replaces_what_is_shown_for_it(warehouse: Warehouse) -> None:
    publish_day(DAY, tier_of_first="S")
    again = publish_day(DAY, tier_of_first="B")
    assert current(warehouse) == (again.run_id, DAY)
    shown = "select run_id, tier from published.{} where account_id = 'A00001'"
    assert warehouse.rows(shown.format("customer_360")) == [(again.run_id, "B")]
    assert warehouse.rows(shown.format("account_tiers")) == [(again.run_id, "B")]


def test_publishing_a_run_again_changes_nothing(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    make_candidate(run_id, DAY)
    first = publish(run_id, DAY)
    assert publish(run_id, DAY) == first
    assert warehouse.value("select count(*) from audit.publishes") == 1
    assert warehouse.value("select count(*) from published.customer_360") == 21


def test_a_run_that_lost_the_lock_publishes_nothing(warehouse: Warehouse) -> None:
    standing = publish_day(DAY)
    loser = begin_run(NEXT)
    make_candidate(loser, NEXT)
    winner = begin_run(NEXT)
    with pytest.raises(StratumError, match=f"not held by run {loser}: it is held by run {winner}"):
        publish(loser, NEXT)
    assert current(warehouse) == (standing.run_id, DAY)
    assert warehouse.value("select count(*) from published.customer_360_by_run") == 21


@pytest.mark.parametrize("table", ALL_TABLES)
@pytest.mark.parametrize("foreign", ["run_id = '20260630_deadbeef'", "as_of_date = '2026-06-29'"])
def test_rows_of_another_run_or_date_are_refused(warehouse: Warehouse, table: str, foreign: str) -> None:
    standing = publish_day(DAY)
    run_id = begin_run(NEXT)
    make_candidate(run_id, NEXT)
    warehouse.rows(
        f"update candidate.{table} set {foreign} where ctid = (select min(ctid) from candidate.{table})"
    )
    with pytest.raises(StratumError, match=f"candidate.{table} is not that of run {run_id}.*: 1 of "):
        publish(run_id, NEXT)
    assert current(warehouse) == (standing.run_id, DAY)
    assert history(warehouse) == {DAY: standing.run_id}


def test_a_missing_or_empty_candidate_is_refused(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    with pytest.raises(StratumError, match=r"candidate\.customer_360 is missing"):
        publish(run_id, DAY)
    make_candidate(run_id, DAY)
    warehouse.rows("delete from candidate.customer_360")
    with pytest.raises(StratumError, match=r"candidate\.customer_360 of run .* has no row"):
        publish(run_id, DAY)
    assert warehouse.value("select count(*) from published.current_run") == 0


def test_two_rows_of_one_account_are_refused_whole(warehouse: Warehouse) -> None:
    run_id = begin_run(DAY)
    make_candidate(run_id, DAY)
    warehouse.rows("insert into candidate.tier_summary select * from candidate.tier_summary where tier = 'S'")
    with pytest.raises(StratumError, match=r"candidate\.tier_summary does not have one row per tier.*, S\)"):
        publish(run_id, DAY)
    assert warehouse.value("select to_regclass('published.customer_360')") is None


def test_a_new_column_appears_at_the_end_and_a_users_view_stands(warehouse: Warehouse) -> None:
    publish_day(DAY)
    warehouse.rows("create view public.mine as select account_id, tier from published.customer_360")
    run_id = begin_run(NEXT)
    make_candidate(run_id, NEXT)
    warehouse.rows("alter table candidate.customer_360 add column loyalty numeric(5,4) default 0.5")
    first_view = warehouse.value("select 'published.customer_360'::regclass::oid")
    publish(run_id, NEXT)
    assert warehouse.value("select 'published.customer_360'::regclass::oid") == first_view
    with connect("bi_reader") as connection:
        cursor = connection.execute("select * from published.customer_360 limit 1")
        assert [column.name for column in cursor.description or []][-1] == "loyalty"
    assert warehouse.value("select count(*) from public.mine") == 21
    rollback()
    assert warehouse.value("select count(*) from published.customer_360 where loyalty is null") == 21


def test_a_new_column_of_the_key_keeps_apart_what_it_tells_apart(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules and models of churn agree by form since contracts have one: a table published before knows no form."""
    with monkeypatch.context() as before:
        before.setitem(
            publishing.CURRENT_TABLES, "warning_agreement", ("told_on", "warning_severity", "churn_risk")
        )
        first = begin_run(DAY)
        make_candidate(first, DAY)
        warehouse.rows("alter table candidate.warning_agreement drop column churn_definition")
        publish(first, DAY)
        finish_run(first)
    run_id = begin_run(NEXT)
    make_candidate(run_id, NEXT)
    warehouse.rows("delete from candidate.warning_agreement")
    warehouse.rows(
        "insert into candidate.warning_agreement (run_id, as_of_date, told_on, warning_severity, churn_risk, "
        "churn_definition) select %s, %s, %s, 'high', 'high', form "
        "from (values ('no order'), ('contract lapse')) as forms (form)",
        run_id,
        NEXT,
        NEXT,
    )
    publish(run_id, NEXT)
    told = "select churn_definition from published.warning_agreement order by 1"
    assert warehouse.rows(told) == [("contract lapse",), ("no order",)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        warehouse.rows(
            "insert into published.warning_agreement_by_run select * from published.warning_agreement"
        )
    rollback()
    assert warehouse.rows(told) == [(None,)]


def test_columns_in_another_order_are_no_change(warehouse: Warehouse) -> None:
    publish_day(DAY)
    run_id = begin_run(NEXT)
    make_candidate(run_id, NEXT)
    warehouse.rows("alter table candidate.tier_summary drop column action")
    warehouse.rows("alter table candidate.tier_summary drop column accounts")
    warehouse.rows(
        "alter table candidate.tier_summary add column action text, add column accounts bigint default 5"
    )
    publish(run_id, NEXT)
    assert warehouse.rows("select distinct accounts from published.tier_summary") == [(5,)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("drop column tier_rank", "tier_rank is gone"),
        ("alter column tier_rank type text", "tier_rank was bigint and is text"),
        ("alter column return_rate_365d type numeric(9,6)", r"return_rate_365d was numeric\(9,4\) and is"),
    ],
)
def test_a_breaking_change_is_refused(warehouse: Warehouse, change: str, told: str) -> None:
    standing = publish_day(DAY)
    run_id = begin_run(NEXT)
    make_candidate(run_id, NEXT)
    warehouse.rows(f"alter table candidate.customer_360 {change}")
    with pytest.raises(StratumError, match=f"{told}.*publish it as customer_360_v2"):
        publish(run_id, NEXT)
    assert current(warehouse) == (standing.run_id, DAY)


def test_a_publish_passes_readers_that_idle_in_a_transaction(warehouse: Warehouse) -> None:
    publish_day(DAY, 20)
    with connect("bi_reader") as reader:
        for _ in range(7):  # often enough that the driver prepares the statement
            assert reader.execute("select count(*) from published.customer_360").fetchone() == (21,)
        publish_day(NEXT, 24)
        # Read committed: the next statement of the same transaction sees the new set, prepared or not.
        assert reader.execute("select count(*) from published.customer_360").fetchone() == (25,)


def test_a_new_column_that_an_idle_reader_blocks_is_told_and_holds_nobody_up(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "WIDEN_WAIT_S", 1.5)
    standing = publish_day(DAY)
    run_id = begin_run(NEXT)
    make_candidate(run_id, NEXT)
    warehouse.rows("alter table candidate.tier_summary add column note text")
    slowest = 0.0
    with connect("bi_reader") as idle, connect("bi_reader") as other:
        idle.execute("select * from published.tier_summary").fetchall()
        other.autocommit = True
        refused: list[PublishBusy] = []

        def try_to_publish() -> None:
            try:
                publish(run_id, NEXT)
            except PublishBusy as error:
                refused.append(error)

        publisher = threading.Thread(target=try_to_publish)
        publisher.start()
        while publisher.is_alive():
            started = publishing.time.monotonic()
            other.execute("select * from published.tier_summary").fetchall()
            slowest = max(slowest, publishing.time.monotonic() - started)
        publisher.join()
    assert "an open transaction reads them" in str(refused[0])
    assert slowest < 0.9
    assert current(warehouse) == (standing.run_id, DAY)
    publish(run_id, NEXT)
    assert current(warehouse) == (run_id, NEXT)


def test_two_publishers_at_once_go_one_after_the_other(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "LOCK_TIMEOUT", "200ms")
    publish_day(DAY)
    publish_day(NEXT)
    with connect("publisher") as connection:
        connection.execute(publishing.MUTEX)
        with pytest.raises(PublishBusy, match="try again"):
            rollback()
    assert rollback().as_of == DAY


def test_rolling_back_shows_the_run_before_and_is_recorded(warehouse: Warehouse) -> None:
    first, second = publish_day(DAY, 20), publish_day(NEXT, 24)
    done = rollback()
    assert (done.run_id, done.as_of, done.moved_pointer) == (first.run_id, DAY, True)
    assert done.rows.items() >= {"customer_360": 21, "tier_summary": 4, "company_summary": 1}.items()
    assert "account_tiers" not in done.rows
    assert current(warehouse) == (first.run_id, DAY)
    assert history(warehouse) == {DAY: first.run_id}
    assert warehouse.rows(
        "select run_id, previous_run_id from audit.publishes where action = 'rollback'"
    ) == [(first.run_id, second.run_id)]


def test_rolling_back_a_repeated_date_shows_its_earlier_run_in_the_history(warehouse: Warehouse) -> None:
    first = publish_day(DAY, tier_of_first="S")
    publish_day(DAY, tier_of_first="C")
    rollback()
    assert history(warehouse) == {DAY: first.run_id}
    assert warehouse.value("select tier from published.account_tiers where account_id = 'A00001'") == "S"


def test_a_run_rolled_back_from_can_be_brought_forward_again(warehouse: Warehouse) -> None:
    first, second = publish_day(DAY), publish_day(NEXT)
    rollback()
    assert rollback(second.run_id).run_id == second.run_id
    assert history(warehouse) == {DAY: first.run_id, NEXT: second.run_id}
    assert rollback().run_id == first.run_id


def test_after_a_rollback_the_next_publish_goes_on_from_there(warehouse: Warehouse) -> None:
    first, second = publish_day(DAY), publish_day(NEXT)
    rollback()
    third = publish_day(NEXT, 24)
    assert current(warehouse) == (third.run_id, NEXT)
    assert history(warehouse) == {DAY: first.run_id, NEXT: third.run_id}
    assert rollback().run_id == first.run_id
    assert second.run_id in [run.run_id for run in list_runs()]


def test_there_must_be_something_to_roll_back_to(warehouse: Warehouse) -> None:
    with pytest.raises(StratumError, match="Nothing is published yet"):
        rollback()
    only = publish_day(DAY)
    with pytest.raises(StratumError, match=f"No run was published before {only.run_id}"):
        rollback()
    with pytest.raises(StratumError, match=f"Run {only.run_id} is what is published now"):
        rollback(only.run_id)
    with pytest.raises(StratumError, match="'20250101_00000000' is not a published run that is kept"):
        rollback("20250101_00000000")


def test_the_list_says_which_runs_are_kept_and_which_is_current(warehouse: Warehouse) -> None:
    assert list_runs() == []
    first, second = publish_day(DAY), publish_day(NEXT, 24)
    rollback()
    assert [(run.run_id, run.as_of, run.is_current) for run in list_runs()] == [
        (second.run_id, NEXT, False),
        (first.run_id, DAY, True),
    ]
    assert list_runs()[0].rows["customer_360"] == 25


def test_retention_keeps_the_newest_and_the_current_and_the_whole_history(warehouse: Warehouse) -> None:
    days = [date(2026, 7, day) for day in range(1, 7)]
    runs = [publish_day(day).run_id for day in days]
    rollback(runs[1])
    assert drop_old_runs(keep=2) == [runs[0], runs[2], runs[3]]
    assert [run.run_id for run in list_runs()] == [runs[5], runs[4], runs[1]]
    assert warehouse.rows("select distinct run_id from published.customer_360_by_run order by 1") == [
        (runs[1],),
        (runs[4],),
        (runs[5],),
    ]
    assert warehouse.value("select count(distinct run_id) from published.account_tiers_by_run") == 6
    assert warehouse.value("select count(*) from published.customer_360") == 21
    assert warehouse.rows(
        "select run_id, rows->>'customer_360' from audit.publishes where action = 'drop' order by publish_id"
    ) == [(run, "21") for run in (runs[0], runs[2], runs[3])]
    assert drop_old_runs(keep=2) == []
    with pytest.raises(StratumError, match=f"Run {runs[0]}, published before, is no longer kept"):
        rollback()
    with pytest.raises(StratumError, match="keep at least 1"):
        drop_old_runs(keep=0)


def test_a_snapshot_older_than_the_drop_still_reads_its_whole_set(warehouse: Warehouse) -> None:
    first = publish_day(DAY, 20)
    with connect("bi_reader") as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select 1")  # the snapshot is taken; no published table was touched yet
        publish_day(NEXT, 24)
        publish_day(date(2026, 7, 2), 28)
        assert drop_old_runs(keep=1)[0] == first.run_id
        row = reader.execute(WHOLE_SET).fetchone()
    assert row == (first.run_id, 20, 20, 20, 1, 1)


def test_eight_readers_see_one_whole_set_through_twenty_publishes_and_rollbacks(warehouse: Warehouse) -> None:
    publish_day(DAY, 8)
    stop = threading.Event()
    broken: list[object] = []
    seen: set[str] = set()
    statements = [0] * 8

    def read(number: int) -> None:
        try:
            with connect("bi_reader") as connection:
                connection.autocommit = number % 2 == 0  # the others read twice in one transaction
                while not stop.is_set():
                    for _ in range(2):
                        row = connection.execute(WHOLE_SET).fetchone()
                        statements[number] += 1
                        if row is None or not (row[1] == row[2] == row[3] and row[4] == row[5] == 1):
                            broken.append(row)
                        else:
                            seen.add(row[0])
                    connection.commit()
        except psycopg.Error as error:
            broken.append(error)

    with connect("bi_reader") as older:
        older.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        before = older.execute(WHOLE_SET).fetchone()
        readers = [threading.Thread(target=read, args=[number]) for number in range(8)]
        for reader in readers:
            reader.start()
        for turn in range(20):
            publish_day(DAY, 8 + 4 * (turn % 5))
            if turn % 2:
                rollback()
            if turn % 5 == 4:
                drop_old_runs(keep=3)
            assert older.execute(WHOLE_SET).fetchone() == before
        stop.set()
        for reader in readers:
            reader.join()
    assert broken == []
    assert min(statements) > 20
    assert len(seen) > 10


def test_lists_are_read_as_published_and_an_unknown_one_names_those_there_are(warehouse: Warehouse) -> None:
    with pytest.raises(StratumError, match="No lists are published yet"):
        list_counts()
    publish_day(DAY)
    assert [(each["list"], each["rows"], each["first_due"]) for each in list_counts()] == [
        ("unsigned contracts", 0, None),
        ("win-back", 0, None),
        ("nurture", 1, DAY + timedelta(days=30)),
    ]
    head, (row,) = one_list("Nurture")
    assert (head["rows"], row["account_id"], row["reason"]) == (1, "A00001", "Tier S.")
    for name in ("win-back", "WIN BACK", "Win_Back"):
        head, rows = one_list(name)
        assert (head["list"], head["rows"], head["amount_is"], rows) == ("win-back", 0, "net revenue", [])
    assert one_list("unsigned-contracts")[1] == []
    with pytest.raises(
        StratumError, match=r"no list 'calls'.*The lists are: unsigned contracts, win-back, nurture\."
    ):
        one_list("calls")


def test_the_command_shows_empty_lists_and_what_an_amount_is(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "warehouse", nullcontext)
    publish_day(DAY)
    overview = CliRunner().invoke(app, ["lists"])
    assert overview.exit_code == 0
    assert [line.split("  ")[0] for line in overview.output.splitlines()] == [
        "unsigned contracts",
        "win-back",
        "nurture",
    ]
    empty = CliRunner().invoke(app, ["lists", "Unsigned-Contracts"])
    assert (empty.exit_code, empty.output) == (
        0,
        "unsigned contracts: 0 rows; the amount is: net revenue\n",
    )
    filled = CliRunner().invoke(app, ["lists", "nurture"])
    assert filled.output.splitlines()[1].endswith("specialist: A00001. Tier S.")
