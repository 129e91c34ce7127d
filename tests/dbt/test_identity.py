"""Which account an id is: by rule, merged on a date, internal, decided by a person; and what that does to the marts."""

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from include.dbt import build
from include.errors import StratumError
from include.simulate.market.crm import accounts_table
from include.simulate.market.orders import labels
from include.simulate.market.population import populate
from include.simulate.market.scales import scale_of
from include.sources import identities
from include.sources.loads import bind_company, landing
from include.warehouse import embedded
from tests.conftest import Warehouse, fresh_warehouse
from tests.dbt.raw_rows import CURRENCY, TIMEZONE, Event, Events, Line, Orders, Version, at, land_versions
from tests.dbt.selections import FEATURES

AS_OF = date(2026, 6, 30)
MERGED_ON = date(2026, 3, 15)
FEBRUARY, MARCH = date(2026, 2, 28), date(2026, 3, 31)
JANUARY = date(2026, 1, 10)


def land_customers(as_of: date, *versions: tuple[str, date, dict[str, str | None]]) -> None:
    """Land versions (customer, day, properties) of the order system's customers."""
    with landing("records", "customers", as_of) as load:
        bind_company(load.connection, "Test company", TIMEZONE, CURRENCY)
        for customer, day, properties in versions:
            load.rows_in += 1
            load.rows_new += 1
            load.connection.execute(
                "insert into raw_files.customers (load_id, load_seq, loaded_at, known_on, valid_from, record_id, "
                "is_archived, row_hash, properties) values (%s, %s, now(), %s, %s, %s, false, 'hash', %s)",
                [load.load_id, load.load_seq, as_of, at(day), customer, Jsonb(properties)],
            )


def company_until(day: date) -> None:
    """Land what the company's systems say up to a day, in one load of each."""
    lines = [
        Line("1", "o1", "c1", at(JANUARY), Decimal(100)),
        Line("2", "o2", "c1", at(date(2026, 2, 10)), Decimal(10), country="DE"),
        Line("3", "o3", "c2", at(date(2026, 2, 10)), Decimal(1), country="FR"),
        Line("4", "o4", "c2", at(date(2026, 2, 20)), Decimal(2)),
        Line("5", "o5", "c1", at(date(2026, 4, 5)), Decimal(7)),
        *(Line(f"9{n}", f"o9{n}", f"c{n}", at(JANUARY), Decimal(50)) for n in range(3, 9)),
        Line("8", "o8", "test1", at(JANUARY), Decimal(1000)),
        Line("7", "o7", None, at(JANUARY), Decimal(5)),
    ]
    Orders().land(day, [line for line in lines if line.day <= day])
    events = [
        Event("1", "c1", at(date(2026, 3, 5)), session_id="a"),
        Event("2", "c2", at(date(2026, 3, 5)), session_id="b"),
        Event("3", "t9", at(date(2026, 2, 25))),
        Event("4", "c1", at(date(2026, 3, 20)), session_id="c"),
    ]
    Events().land(day, [event for event in events if event.day <= day])
    customers: list[tuple[str, date, dict[str, str | None]]] = [
        ("c1", JANUARY, {"tax_id": "T00001", "domain": "one.example"}),
        ("c2", JANUARY, {"tax_id": "T00002", "domain": "two.example", "parent_customer_id": "c8"}),
        ("c3", JANUARY, {"tax_id": "T00003", "domain": "three.example"}),
        ("c4", JANUARY, {"tax_id": "T00004", "domain": "shared.example"}),
        ("c5", JANUARY, {"tax_id": "T00005", "domain": "shared.example"}),
        ("test1", JANUARY, {"is_internal": "true"}),
        (
            "c1",
            MERGED_ON,
            {"tax_id": "T00001", "merged_into_customer_id": "c2", "merged_on": MERGED_ON.isoformat()},
        ),
        ("c2", date(2026, 5, 1), {"tax_id": "T00002", "domain": "two.example", "parent_customer_id": "c7"}),
    ]
    land_customers(day, *[each for each in customers if each[1] <= day])
    companies = [
        Version("1", "c1", at(JANUARY), {"name": "One"}),
        Version("2", "c2", at(JANUARY), {"name": "Two"}),
        Version("3", "c3", at(JANUARY), {"name": "Three"}),
        Version("4", None, at(JANUARY), {"name": "Three again", "domain": "https://www.three.example/"}),
        Version("5", None, at(JANUARY), {"name": "One of two", "domain": "shared.example"}),
        Version("6", None, at(JANUARY), {"name": "Prospect", "domain": "new.example"}),
        Version("7", "c7", at(JANUARY), {"name": "Seven"}),
        Version("8", "c7", at(JANUARY), {"name": "Seven too"}),
        Version("9", "test1", at(JANUARY), {"name": "Try out"}),
    ]
    land_versions(day, "companies", companies)
    contacts = [Version(number, number, at(JANUARY), {}) for number in ("1", "2", "3", "4")]
    land_versions(day, "contacts", contacts)


def run(as_of: date, *, full_refresh: bool = False, only: tuple[str, ...] = FEATURES) -> None:
    """Build the staging layer and the marts of a date."""
    run_id = f"run-{as_of}"
    build("staging", as_of, run_id)
    build("marts", as_of, run_id, full_refresh=full_refresh, only=only)


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse) -> Warehouse:
    company_until(AS_OF)
    run(AS_OF, only=())
    build("published", AS_OF, f"run-{AS_OF}")
    return module_warehouse


def features(warehouse: Warehouse, day: date | None = None) -> list[tuple]:
    where = "" if day is None else f"where as_of_date = '{day}'"
    return warehouse.rows(f"select * from marts.account_features {where} order by as_of_date, account_id")


def of(warehouse: Warehouse, day: date, *accounts: str) -> list[tuple]:
    return warehouse.rows(
        "select account_id, orders_total, order_days_total, net_revenue_total::int, order_country, "
        "active_days_30d, sessions_90d, contacts, last_order_date from marts.account_features "
        "where as_of_date = %s and account_id = any(%s) order by 1",
        day,
        list(accounts),
    )


def mapping(warehouse: Warehouse, system: str, source_id: str) -> list[tuple]:
    return warehouse.rows(
        "select account_id, matched_by, valid_from_date, valid_until_date from identity.int_account_crosswalk "
        "where source_system = %s and source_account_id = %s order by valid_from_date nulls first",
        system,
        source_id,
    )


def test_two_customers_are_two_accounts_until_the_day_they_are_merged(built: Warehouse) -> None:
    assert mapping(built, "orders", "c1") == [
        ("c1", "own_id", None, MERGED_ON),
        ("c2", "merge", MERGED_ON, None),
    ]
    assert mapping(built, "hubspot", "1") == [
        ("hubspot:1", "own_id", None, JANUARY),
        ("c1", "account_number", JANUARY, MERGED_ON),
        ("c2", "merge", MERGED_ON, None),
    ]
    assert of(built, FEBRUARY, "c1", "c2") == [
        ("c1", 2, 2, 110, "DE", 0, 0, 1, date(2026, 2, 10)),
        ("c2", 2, 2, 3, "CN", 0, 0, 1, date(2026, 2, 20)),
    ]
    # The day both ordered on, and the day both logged in on, are one day of the account.
    assert of(built, MARCH, "c1", "c2") == [("c2", 4, 3, 113, "CN", 2, 3, 2, date(2026, 2, 20))]
    assert of(built, AS_OF, "c1", "c2")[0][1:4] == (5, 4, 120)


def test_an_account_that_merges_into_another_ends_in_the_history_of_tiers(built: Warehouse) -> None:
    history = built.rows(
        "select account_id, min(valid_from_date), max(coalesce(valid_until_date, '9999-12-31')) "
        "from marts.account_tier_history where account_id in ('c1', 'c2', 'test1') group by 1 order by 1"
    )
    assert history == [("c1", date(2026, 1, 31), MARCH), ("c2", FEBRUARY, date(9999, 12, 31))]
    assert ("c1", "gone") in built.rows(
        "select account_id, direction from marts.account_tier_movements where as_of_date = %s", MARCH
    )


def test_the_next_order_of_a_customer_merged_since_is_that_of_the_account(built: Warehouse) -> None:
    found = built.rows(
        "select as_of_date, account_id, next_order_date from marts.account_next_orders "
        "where account_id in ('c1', 'c2') and as_of_date in ('2026-01-31', %s, %s) order by 1, 2",
        FEBRUARY,
        MARCH,
    )
    april = date(2026, 4, 5)
    assert found == [
        (date(2026, 1, 31), "c1", date(2026, 2, 10)),
        (FEBRUARY, "c1", april),
        (FEBRUARY, "c2", april),
        (MARCH, "c2", april),
    ]


@pytest.mark.extended
def test_a_date_before_the_merge_is_built_the_same_by_who_knows_nothing_of_it(
    built: Warehouse, cluster: embedded.Cluster, template: str, tmp_path: Path
) -> None:
    with fresh_warehouse(cluster, template, tmp_path) as cut_off:
        company_until(FEBRUARY)
        run(FEBRUARY)
        known_then = features(cut_off, FEBRUARY)
    assert len(known_then) == 8
    assert features(built, FEBRUARY) == known_then


def test_a_doubled_record_joins_its_twin_and_says_by_which_rule(built: Warehouse) -> None:
    assert mapping(built, "hubspot", "4") == [
        ("hubspot:4", "own_id", None, JANUARY),
        ("c3", "domain", JANUARY, None),
    ]
    assert of(built, AS_OF, "c3")[0][7] == 2
    # The record that carries the number is the account's, not its double.
    profile = built.rows(
        "select account_name, crm_system, crm_record_id from candidate.customer_360 where account_id = 'c3'"
    )
    assert profile == [("Three", "hubspot", "3")]


def test_what_is_ambiguous_links_nothing_and_is_listed_with_what_is_contradictory(built: Warehouse) -> None:
    assert {row[:2] for row in mapping(built, "hubspot", "5")} == {("hubspot:5", "own_id")}
    issues = built.rows(
        "select kind, source_system, source_account_id, candidate_ids, evidence from identity.int_identity_issues "
        "order by kind, source_system, source_account_id"
    )
    assert [row[:4] for row in issues] == [
        ("doubled_number", "hubspot", "7", None),
        ("doubled_number", "hubspot", "8", None),
        ("no_customer", "hubspot", "6", None),
        ("several_candidates", "hubspot", "5", "c4, c5"),
        ("unknown_tenant", "behavior", "t9", None),
    ]
    assert issues[0][4] == "its number c7 stands on the active records 7, 8"
    assert issues[3][4] == "domain shared.example is that of c4, c5"


def test_a_test_account_is_nowhere_and_the_books_add_up(built: Warehouse) -> None:
    for table in ("marts.account_features", "marts.account_tiers", "marts.account_profiles"):
        assert not built.value(f"select count(*) from {table} where account_id = 'test1'"), table
    assert not built.value(
        "select count(*) from candidate.customer_360 where account_id = 'test1' or crm_record_id = '9'"
    )
    assert not built.value("select count(*) from candidate.account_tiers where account_id = 'test1'")
    (books,) = built.rows(
        "select net_revenue_total, net_revenue_unattributed, net_revenue_excluded, accounts_excluded, "
        "order_lines_excluded from candidate.company_summary"
    )
    of_accounts = built.value("select sum(net_revenue_total) from candidate.customer_360")
    assert books[1:] == (5, 1000, 1, 1)
    assert books[0] == of_accounts + books[1] + books[2] == 1425


def test_a_parent_is_told_as_of_the_date(built: Warehouse) -> None:
    parents = built.rows(
        "select account_id, parent_account_id, valid_from_date, valid_until_date from identity.int_account_parents "
        "order by 3"
    )
    assert parents == [("c2", "c8", JANUARY, date(2026, 5, 1)), ("c2", "c7", date(2026, 5, 1), None)]
    told = "select parent_account_id from candidate.customer_360 where account_id = 'c2'"
    assert built.rows(told) == [("c7",)]


@pytest.mark.parametrize(
    ("decide", "told"),
    [
        (
            lambda: identities.link("hubspot", "77", "c1", "x"),
            "No id 77 of hubspot is known; the systems are",
        ),
        (lambda: identities.link("hubspot", "6", "c99", "x"), "No account c99 is known"),
        (lambda: identities.link("hubspot", "6", "c1", "x"), "c1 was merged away"),
        (lambda: identities.link("hubspot", "4", "c3", "x"), "is account c3 already"),
        (lambda: identities.link("orders", "c4", "c3", "x"), "is the account of its number"),
        (lambda: identities.link("hubspot", "6", "c3", " "), "needs its reason"),
        (lambda: identities.separate("hubspot", "6", "x"), "an account of its own already"),
        (lambda: identities.merge("c4", "c4", AS_OF, "x"), "into itself"),
        (lambda: identities.merge("c2", "c1", AS_OF, "x"), "cannot be merged both ways"),
        (lambda: identities.merge("c4", "hubspot:6", AS_OF, "x"), "merge hubspot:6 into c4"),
        (lambda: identities.exclude("test1", "x"), "excluded already, by source_flag true"),
        (lambda: identities.undo(99, "x"), "no decision 99"),
    ],
)
def test_a_decision_that_cannot_be_is_refused_in_one_line(
    built: Warehouse, decide: object, told: str
) -> None:
    with pytest.raises(StratumError, match=told) as refusal:
        decide()  # type: ignore[operator]
    assert "\n" not in str(refusal.value)
    assert built.value("select count(*) from identity.decisions") == 0


def test_what_is_known_and_open_is_shown(built: Warehouse) -> None:
    from include.commands.identities import in_lines

    found = identities.show_identities("ambiguous", 10)
    assert {"source_system": "hubspot", "matched_by": "domain", "ids": 1} in found.counts
    assert [each["source_account_id"] for each in found.open] == ["5"]
    assert [each["account_id"] for each in found.excluded] == ["test1"]
    shown = "\n".join(in_lines(found, "ambiguous"))
    assert (
        "several_candidates: hubspot 5 (account hubspot:5): domain shared.example is that of c4, c5" in shown
    )
    with pytest.raises(StratumError, match="No open identity is of the kind 'nonsense'"):
        identities.show_identities("nonsense", 1)


@pytest.fixture
def undecided(built: Warehouse) -> Warehouse:
    """The warehouse, in which nothing is decided any more; what was built of it stands until the next build."""
    built.rows("truncate identity.decisions restart identity")
    return built


@pytest.mark.extended
def test_a_decided_merge_restates_from_its_day_and_is_undone_without_a_trace(undecided: Warehouse) -> None:
    """A build that knows it, one from scratch, and one after the undo: in any order of dates."""
    before = features(undecided)
    places = dict(
        undecided.rows("select (account_id, as_of_date)::text, xmin::text from marts.account_features")
    )
    day = date(2026, 5, 10)
    number = identities.merge("c4", "c6", day, "one company since May")
    earlier = date(2026, 5, 20)
    run(earlier)
    run(AS_OF)
    after = features(undecided)
    assert [row[:4] for row in of(undecided, AS_OF, "c4", "c6")] == [("c6", 2, 1, 100)]
    assert [row[0] for row in of(undecided, date(2026, 4, 30), "c4", "c6")] == ["c4", "c6"]
    assert [row[0] for row in of(undecided, earlier, "c4", "c6")] == ["c6"]
    # Written anew are the two accounts from the day on, and the date of the run; nothing else.
    moved = {
        key
        for key, place in undecided.rows(
            "select (account_id, as_of_date)::text, xmin::text from marts.account_features "
            "where as_of_date not in (%s, %s)",
            earlier,
            AS_OF,
        )
        if places[key] != place
    }
    assert moved == {"(c6,2026-05-31)"}
    run(AS_OF, full_refresh=True)
    assert features(undecided) == after
    identities.undo(number, "they are not")
    run(AS_OF)
    undecided.rows("delete from marts.account_features where as_of_date = %s", earlier)
    assert features(undecided) == before


@pytest.mark.extended
def test_decisions_link_separate_and_exclude(undecided: Warehouse) -> None:
    identities.link("hubspot", "6", "c8", "the invoice goes to c8")
    identities.link("behavior", "t9", "c3", "their tenant")
    identities.separate("hubspot", "4", "another company of the group")
    identities.separate("orders", "c1", "the order system is wrong")
    identities.exclude("c6", "our own shop", date(2026, 4, 1))
    run(AS_OF)
    assert mapping(undecided, "hubspot", "6") == [("c8", "decision", None, None)]
    assert mapping(undecided, "hubspot", "4") == [("hubspot:4", "decision", None, None)]
    assert mapping(undecided, "orders", "c1") == [("c1", "own_id", None, None)]
    assert of(undecided, FEBRUARY, "c3")[0][5:8] == (1, 1, 1)
    assert [row[0] for row in of(undecided, AS_OF, "c1", "c2")] == ["c1", "c2"]
    assert [bool(of(undecided, day, "c6")) for day in (MARCH, date(2026, 4, 30), AS_OF)] == [
        True,
        False,
        False,
    ]
    run(AS_OF, full_refresh=True)
    assert [bool(of(undecided, day, "c6")) for day in (MARCH, date(2026, 4, 30), AS_OF)] == [
        True,
        False,
        False,
    ]


def test_one_id_that_is_two_accounts_by_a_decision_is_listed(undecided: Warehouse) -> None:
    identities.link("behavior", "c2", "c3", "the tenants were swapped")
    build("staging", AS_OF, "run-swapped")
    assert undecided.rows(
        "select source_system, source_account_id, candidate_ids from identity.int_identity_issues "
        "where kind = 'id_means_two_accounts'"
    ) == [("behavior", "c2", "c3, c2")]


def test_a_decision_against_an_earlier_one_is_refused(undecided: Warehouse) -> None:
    first = identities.link("hubspot", "6", "c8", "x")
    merged = identities.merge("c4", "c5", AS_OF - timedelta(days=1), "x")
    for decide, told in (
        (lambda: identities.separate("hubspot", "6", "x"), f"Decision {first} .link. is about hubspot 6"),
        (lambda: identities.merge("c4", "c3", AS_OF, "x"), f"Decision {merged} has merged c4 before"),
        (lambda: identities.merge("c5", "c4", AS_OF, "x"), "cannot be merged both ways"),
    ):
        with pytest.raises(StratumError, match=told):
            decide()
    undone = identities.undo(first, "x")
    with pytest.raises(StratumError, match=f"was taken back before, by {undone}"):
        identities.undo(first, "x")
    with pytest.raises(StratumError, match="decide anew"):
        identities.undo(undone, "x")
    identities.separate("hubspot", "4", "x")
    assert [each["action"] for each in identities.show_identities(None, 0).decisions] == ["merge", "separate"]


def test_before_the_first_build_the_command_says_so(warehouse: Warehouse) -> None:
    with pytest.raises(StratumError, match="they are made by a build"):
        identities.show_identities(None, 1)


@pytest.mark.extended
def test_of_a_simulated_market_every_link_by_a_rule_is_right_and_none_of_a_double_is_missed(
    warehouse: Warehouse,
) -> None:
    """The market doubles records, leaves numbers out, and knows which company each record is."""
    made = populate(scale_of("S"), 7, 0, 0, 1_500)
    codes = labels("C", made.number, 7)
    records = accounts_table(made, codes, 7, 0).to_pylist()
    number = {record["crm_id"]: (int(record["crm_id"]) - 1_000_000) // 2 for record in records}
    customers = {n: code for n, code in enumerate(codes.to_pylist()) if made.converts[n]}
    keys = {number[each["crm_id"]]: {"tax_id": each["tax_id"], "domain": each["domain"]} for each in records}
    land_customers(AS_OF, *[(code, JANUARY, keys[n]) for n, code in customers.items()])
    versions = [
        Version(
            each["crm_id"], each["account_no"], at(JANUARY), {"name": each["name"], "domain": each["domain"]}
        )
        for each in records
    ]
    land_versions(AS_OF, "companies", versions)
    build("staging", AS_OF, "run-market")
    found = dict(
        warehouse.rows(
            "select source_account_id, account_id from identity.int_identity_links "
            "where matched_by in ('tax_id', 'domain', 'name')"
        )
    )
    unnumbered = [each["crm_id"] for each in records if each["account_no"] is None]
    known = {record: customers[number[record]] for record in unnumbered if number[record] in customers}
    assert sum(int(record) % 2 for record in known) > 5  # doubled ones
    assert found == known
