"""The CRM's records, and those beside it, from files: whose they are, what an early day may see, what is refused."""

import gzip
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from include.errors import StratumError
from include.sources.config import Sources, load_sources
from include.sources.crm import ingest_crm_and_records
from include.sources.loads import Load
from include.sources.records import ingest_records
from include.sources.replay import record_rows_open, replay
from include.sources.retract import retract
from tests.conftest import Warehouse
from tests.integration.record_stage import Records, check_books, counts
from tests.integration.sandbox_fixture import account, reach, running_sandbox

pytestmark = pytest.mark.extended

JUNE, JULY = date(2026, 6, 30), date(2026, 7, 1)
ACCOUNTS = {"file": "accounts.csv", "columns": {"account_id": "id", "account_number": "number"}}


@pytest.fixture
def warehouse(emptied_warehouse: Warehouse) -> Warehouse:
    return emptied_warehouse


def sources(folder: Path, **records: dict[str, Any]) -> Sources:
    """Return the sources of a company whose CRM is files, with its accounts 1 (customer C1), 2 and 3 (of no number)."""
    (folder / "accounts.csv").write_text("id,number,made\n1,C1,2026-01-01\n2,,2026-01-01\n3,,2026-01-01\n")
    accounts = {**ACCOUNTS, "columns": ACCOUNTS["columns"] | {"created_at": "made"}}  # type: ignore[operator]
    given = {
        name: {**each, "file": str(folder / each["file"])}
        for name, each in {"accounts": accounts, **records}.items()
    }
    return Sources.model_validate(
        {
            "company": {"name": "Test", "timezone": "Asia/Shanghai", "currency": "CNY"},
            "crm": {"system": "files"},
            "records": given,
        }
    )


def load(warehouse: Warehouse, given: Sources, as_of: date = JUNE) -> dict[str, Load]:
    loads = ingest_records(given, as_of)
    for each in loads.values():
        check_books(warehouse, each)
    return loads


def mapped(file: str, *columns: str, **others: Any) -> dict[str, Any]:
    return {"file": file, "columns": {name: name for name in columns}, **others}


def queued(warehouse: Warehouse) -> set[tuple[str, date]]:
    return set(warehouse.rows("select account_key, from_date from intermediate.restatement_queue"))


def test_records_of_no_account_are_kept_and_counted(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "contacts.csv").write_text(
        "contact_id,account_id,has_opted_out\nk1,1,true\nk2,99,false\nk3,,\nk4,2,perhaps\n"
    )
    given = sources(tmp_path, contacts=mapped("contacts.csv", "contact_id", "account_id", "has_opted_out"))
    loads = load(warehouse, given)
    assert (counts(loads["contacts"]), loads["contacts"].rows_unattributed) == ((3, 0, 0, 1), 2)
    assert loads["contacts"].reasons == {"unreadable_has_opted_out": 1}
    assert loads["accounts"].rows_unattributed == 2
    assert warehouse.rows("select record_id, company_record_id from raw_files.contacts order by 1") == [
        ("k1", "1"),
        ("k2", "99"),
        ("k3", None),
    ]


def test_a_ticket_is_not_resolved_before_it_is(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text(
        "ticket_id,account_id,opened_at,resolved_at,csat\n"
        "t1,1,2026-06-01 10:00:00,2026-06-29 10:00:00,4\n"
        "t2,1,2026-06-01 10:00:00,2026-07-01 10:00:00,2\n"
        "t3,1,2026-06-02 10:00:00,2026-06-01 10:00:00,\n"
    )
    tickets = mapped("tickets.csv", "ticket_id", "account_id", "opened_at", "resolved_at", "csat")
    given = sources(tmp_path, tickets=tickets)
    assert load(warehouse, given)["tickets"].reasons == {"resolved_before_opened": 1}
    stage = Records(warehouse, tmp_path, "tickets")
    seen = {
        (ticket, day): stage.value(ticket, date(2026, 6, day), "csat")
        for ticket in ("t1", "t2")
        for day in (28, 29)
    }
    assert seen == {("t1", 28): None, ("t1", 29): "4.0000", ("t2", 28): None, ("t2", 29): None}
    assert counts(load(warehouse, given, JULY)["tickets"]) == (0, 1, 1, 1)
    assert stage.value("t2", JULY, "resolved_at") == "2026-07-01T02:00:00.000000Z"
    assert stage.value("t2", JUNE, "resolved_at") is None
    assert ("files:1", date(2026, 6, 1)) in queued(warehouse)


def test_an_opportunity_was_in_each_stage_when_its_stages_say(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "stages.csv").write_text(
        "opportunity_id,stage,entered_at\n"
        "o1,lead,2026-03-01 09:00:00\no1,proposal,2026-04-01 09:00:00\no1,won,2026-07-01 09:00:00\n"
        "o1,lead,2026-03-01 09:00:00\n"  # said twice
        "o2,lead,2026-03-01 09:00:00\no2,trial,2026-03-01 09:00:00\n"  # cannot be
    )
    (tmp_path / "opportunities.csv").write_text("opportunity_id,account_id\no1,2\no2,2\n")
    given = sources(
        tmp_path,
        opportunities=mapped("opportunities.csv", "opportunity_id", "account_id"),
        opportunity_stages=mapped("stages.csv", "opportunity_id", "stage", "entered_at"),
    )
    done = load(warehouse, given)["opportunity_stages"]
    assert (counts(done), done.rows_later) == ((2, 0, 0, 3), 1)
    assert done.reasons == {"repeated": 1, "contradictory": 2}
    stages = Records(warehouse, tmp_path, "opportunity_stages")
    assert [stages.value("o1", date(2026, month, 1), "stage") for month in (3, 4, 6)] == [
        "lead",
        "proposal",
        "proposal",
    ]
    assert ("files:2", date(2026, 3, 1)) in queued(warehouse)
    assert counts(load(warehouse, given, JULY)["opportunity_stages"]) == (0, 1, 2, 3)
    assert stages.value("o1", JULY, "stage") == "won"


def test_money_without_a_rate_is_refused_and_no_money_needs_none(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    (tmp_path / "contracts.csv").write_text(
        "contract_id,customer_id,value,currency\nv1,C1,10,\nv2,C1,10,CNY\nv3,C1,10,XTS\nv4,C1,,XTS\nv5,C1,10,yuan\n"
    )
    contracts = mapped("contracts.csv", "contract_id", "customer_id", "value", "currency")
    done = load(warehouse, sources(tmp_path, contracts=contracts))["contracts"]
    assert (counts(done), done.reasons) == (
        (3, 0, 0, 2),
        {"no_exchange_rate": 1, "unreadable_currency": 1},
    )


def test_a_record_names_its_account_by_the_crms_id_or_by_the_customer(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    (tmp_path / "referrals.csv").write_text(
        "referral_id,account_id,customer_id,referred_account_id,referred_customer_id,referred_at\n"
        "f1,1,,2,,2026-05-01\nf2,,C9,,C1,2026-05-02\nf3,,,,,2026-05-03\nf4,99,,,,2026-05-04\n"
    )
    columns = ("referral_id", "account_id", "customer_id", "referred_account_id", "referred_customer_id")
    given = sources(tmp_path, referrals=mapped("referrals.csv", *columns, "referred_at"))
    assert load(warehouse, given)["referrals"].rows_unattributed == 2
    rows = warehouse.rows(
        "select record_id, account_key, properties ->> 'referred_account_key' from raw_files.referrals order by 1"
    )
    assert rows == [
        ("f1", "files:1", "files:2"),
        ("f2", "C9", "C1"),
        ("f3", None, None),
        ("f4", "files:99", None),
    ]
    assert ("C9", date(2026, 5, 2)) in queued(warehouse)


def test_answers_spend_products_experiments_and_industries_land(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(
        '{"answer_id": "a1", "account_id": "1", "survey_type": "NPS", "score": 9, "answered_at": "2026-05-01T10:00:00Z"}\n'
        '{"answer_id": "a2", "account_id": "1", "survey_type": "nps", "score": 11, "answered_at": "2026-05-01T10:00:00Z"}\n'
        '{"answer_id": "a3", "account_id": "1", "survey_type": "CSAT", "score": 4.5, "answered_at": "2026-05-01"}\n'
    )
    with gzip.open(tmp_path / "spend.csv.gz", "wt") as file:
        file.write("spent_on,channel,is_online,amount\n2026-05-01,fair,no,10.5\n2026-05-01,mail,yes,-1\n")
        file.write("2026-07-01,fair,no,10\n")
    with duckdb.connect() as engine:
        engine.execute(
            "copy (select 'P1' as product_id, 'screws' as category, 'tools' as module) "
            f"to '{tmp_path}/products.parquet'"
        )
    (tmp_path / "experiments.csv").write_text(
        "experiment,unit_id,customer_id,variant,assigned_at\nprice,C1,C1,control,2026-05-01\n"
    )
    (tmp_path / "industries.csv").write_text(
        "industry,yearly_growth,effective_from\nsteel,0.02,2025-01-01\nsteel,0.03,2026-01-01\nsteel,0.09,2027-01-01\n"
    )
    given = sources(
        tmp_path,
        survey_answers=mapped(
            "answers.jsonl", "answer_id", "account_id", "survey_type", "score", "answered_at"
        ),
        campaign_spend=mapped("spend.csv.gz", "spent_on", "channel", "is_online", "amount"),
        products=mapped("products.parquet", "product_id", "category", "module"),
        experiment_assignments=mapped(
            "experiments.csv", "experiment", "unit_id", "customer_id", "variant", "assigned_at"
        ),
        industries=mapped("industries.csv", "industry", "yearly_growth", "effective_from"),
    )
    loads = load(warehouse, given)
    assert {name: (counts(each), each.rows_later) for name, each in loads.items() if name != "accounts"} == {
        "survey_answers": ((2, 0, 0, 1), 0),
        "campaign_spend": ((1, 0, 0, 1), 1),
        "products": ((1, 0, 0, 0), 0),
        "experiment_assignments": ((1, 0, 0, 0), 0),
        "industries": ((2, 0, 0, 0), 1),
    }
    assert loads["survey_answers"].reasons == {"score_out_of_range": 1}
    assert loads["campaign_spend"].reasons == {"amount_negative": 1}
    growth = Records(warehouse, tmp_path, "industries")
    assert [growth.value("steel", date(year, 6, 1), "yearly_growth") for year in (2025, 2026)] == [
        "0.0200",
        "0.0300",
    ]
    assert warehouse.value("select record_id from raw_files.campaign_spend") == "2026-05-01|fair|"


def test_each_file_states_its_own_time_zone(warehouse: Warehouse, tmp_path: Path) -> None:
    for name in ("contacts.csv", "tickets.csv"):
        (tmp_path / name).write_text(
            "id,made\nplain,2026-06-30 20:00:00\nown,2026-06-30 20:00:00+08:00\nlate,2026-06-30 23:00:00\n"
        )
    given = sources(
        tmp_path,
        contacts={"file": "contacts.csv", "columns": {"contact_id": "id", "created_at": "made"}},
        tickets={
            "file": "tickets.csv",
            "timezone": "UTC",
            "columns": {"ticket_id": "id", "opened_at": "made"},
        },
    )
    loads = load(warehouse, given)
    assert (counts(loads["contacts"]), counts(loads["tickets"]), loads["tickets"].rows_later) == (
        (3, 0, 0, 0),
        (1, 0, 0, 0),
        2,
    )
    assert warehouse.value("select known_on from raw_files.tickets") == JUNE


def test_a_corrupt_file_among_good_ones_and_a_broken_line_are_refused_and_the_rest_lands(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    for name, number in (("1", 1), ("3", 2)):
        with duckdb.connect() as engine:
            engine.execute(
                f"copy (select 'k{number}' as contact_id, '1' as account_id) to '{tmp_path}/c{name}.parquet'"
            )
    (tmp_path / "c2.parquet").write_bytes(b"PAR1 no parquet")
    (tmp_path / "tickets.csv").write_text(
        "ticket_id,opened_at\nt1,2026-05-01\nt2\nt3,1970-01-01\nt4,2999-01-01\nt5,soon\n,2026-05-01\n"
    )
    given = sources(
        tmp_path,
        contacts=mapped("c*.parquet", "contact_id", "account_id"),
        tickets=mapped("tickets.csv", "ticket_id", "opened_at"),
    )
    loads = load(warehouse, given)
    assert (counts(loads["contacts"]), loads["contacts"].reasons) == ((2, 0, 0, 1), {"unreadable_file": 1})
    assert (counts(loads["tickets"]), loads["tickets"].rows_later) == ((1, 0, 0, 4), 1)
    assert loads["tickets"].reasons == {
        "unreadable_row": 1,
        "implausible_date": 1,
        "unreadable_opened_at": 1,
        "missing_ticket_id": 1,
    }


def test_refused_rows_are_settled_by_the_load_that_can_read_them(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = tmp_path / "tickets.csv"
    given = sources(tmp_path, tickets=mapped("tickets.csv", "ticket_id", "opened_at"))
    path.write_text("ticket_id,opened_at\nt1,soon\nt2,2026-05-01\n")
    load(warehouse, given)
    path.write_text("ticket_id,opened_at\nt1,2026-05-01\nt2,2026-05-01\n")
    done = load(warehouse, given)["tickets"]
    assert counts(done) == (1, 0, 1, 0)
    assert warehouse.rows("select reason, resolved_load_id from quarantine.rows") == [
        ("unreadable_opened_at", done.load_id)
    ]


def test_a_replay_leaves_records_to_the_next_load_and_says_how(warehouse: Warehouse, tmp_path: Path) -> None:
    given = sources(tmp_path, tickets=mapped("tickets.csv", "ticket_id", "opened_at"))
    (tmp_path / "tickets.csv").write_text("ticket_id,opened_at\nt1,soon\nt2,2026-05-01\nt3,later\n")
    load(warehouse, given)
    assert replay(given, JUNE) == []
    assert (
        record_rows_open(None, None),
        record_rows_open("records", "contacts"),
        record_rows_open("crm", None),
    ) == (
        2,
        0,
        0,
    )
    assert warehouse.value("select count(*) from quarantine.rows where resolved_load_id is null") == 2


def test_a_column_that_is_gone_fails_its_entity_by_name_and_a_new_one_is_told(
    warehouse: Warehouse, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tickets.csv"
    given = sources(tmp_path, tickets=mapped("tickets.csv", "ticket_id", "opened_at"))
    path.write_text("ticket_id,opened_at\nt1,2026-05-01\n")
    load(warehouse, given)
    path.write_text("ticket_id,opened_at,colour\nt1,2026-05-01,red\n")
    assert counts(load(warehouse, given)["tickets"]) == (0, 0, 1, 0)
    assert "records.tickets: the column 'colour' (VARCHAR) is new" in caplog.text
    path.write_text("ticket_id\nt1\n")
    with pytest.raises(
        StratumError, match=r"no longer has the column 'opened_at', which records\.tickets\.columns"
    ):
        ingest_records(given, JULY)
    booked = warehouse.rows(
        "select entity from audit.loads where as_of_date = %s and status = 'loaded'", JULY
    )
    assert booked == [("accounts",)]


def test_a_retracted_load_leaves_what_was_before_and_queues_its_accounts(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    files = {
        "contacts": "contact_id,account_id,job_title\nk1,1,{}\n",
        "contracts": "contract_id,customer_id,ends_on\nv1,C7,{}\n",
        "customers": "customer_id,customer_name\nC8,{}\n",
        "products": "product_id,category\nP1,{}\n",
    }
    given = sources(
        tmp_path, **{name: mapped(f"{name}.csv", *files[name].split("\n")[0].split(",")) for name in files}
    )
    for day, value in ((JUNE, "2026-01-01"), (JULY, "2027-01-01")):
        for name, text in files.items():
            (tmp_path / f"{name}.csv").write_text(text.format(value))
        loads = load(warehouse, given, day)
    assert all(counts(loads[name]) == (0, 1, 0, 0) for name in files)
    warehouse.rows("delete from intermediate.restatement_queue")
    for name in files:
        assert retract(str(loads[name].load_id), "wrong file").rows == 1
        assert warehouse.value(f"select count(*) from raw_files.{name}") == 1
    assert queued(warehouse) == {("files:1", JULY), ("C7", JULY), ("C8", JULY)}
    again = load(warehouse, given, JULY)
    assert all(counts(again[name]) == (0, 1, 0, 0) for name in files)


def test_with_files_as_the_crm_every_other_crm_is_absent(warehouse: Warehouse, tmp_path: Path) -> None:
    loads = ingest_crm_and_records(sources(tmp_path), JUNE)
    assert loads is not None
    assert list(loads) == ["accounts"]
    absent = warehouse.rows(
        "select source, count(*) from audit.loads where status = 'absent' group by 1 order by 1"
    )
    assert absent == [("crm", 5), ("records", 12)]
    nothing = Sources.model_validate(
        {"company": {"name": "Test", "timezone": "Asia/Shanghai", "currency": "CNY"}}
    )
    assert ingest_crm_and_records(nothing, JULY) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("records: {custmers: {file: c.csv}}", "the key 'records.custmers' is not known"),
        (
            "records: {customers: {file: c.csv, columns: {customer_id: nr, colour: red}}}",
            "the key 'records.customers.columns.colour' is not known",
        ),
        (
            "records: {customers: {file: c.csv, columns: {customer_name: nr}}}",
            "the key 'records.customers.columns.customer_id' is missing",
        ),
        (
            "records: {tickets: {file: c.csv, columns: {ticket_id: nr, opened_at: at}}}",
            "records.tickets is a record of the CRM, and crm.system is not given",
        ),
        (
            "crm: {system: hubspot}\nrecords: {tickets: {file: c.csv, columns: {ticket_id: nr, opened_at: at}}}",
            "records.tickets is a record of the CRM, and crm.system is hubspot",
        ),
        ("crm: {system: files}", "records.accounts is missing"),
        ("crm: {system: files, connection: x}", "crm: of files it names the system alone"),
        (
            "records: {contracts: {file: c.csv, columns: {contract_id: nr, account_id: a}}}",
            "records.contracts.columns.account_id is an id of the CRM's, and there is no crm",
        ),
    ],
)
def test_a_mapping_that_cannot_be_is_one_line_that_names_the_key(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "sources.yml"
    path.write_text(f"company: {{name: Test}}\n{text}\n")
    with pytest.raises(StratumError) as caught:
        load_sources(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_after_a_change_to_another_crm_the_accounts_of_files_stand_no_more(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "contacts.csv").write_text("contact_id,account_id\nk1,1\n")
    (tmp_path / "contracts.csv").write_text("contract_id,customer_id,sent_at\nv1,C1,2026-02-01\n")
    contracts = mapped("contracts.csv", "contract_id", "customer_id", "sent_at")
    before = sources(
        tmp_path, contacts=mapped("contacts.csv", "contact_id", "account_id"), contracts=contracts
    )
    ingest_crm_and_records(before, JUNE)
    with running_sandbox(tmp_path / "crm.sqlite", [account(7)]) as crm:
        reach(monkeypatch, crm)
        given = before.model_dump(exclude_unset=True) | {"crm": {"system": "hubspot"}}
        given["records"] = {"contracts": given["records"]["contracts"]}
        after = Sources.model_validate(given)
        ingest_crm_and_records(after, JULY)
        ingest_crm_and_records(after, JULY)
    standing = (
        "select record_id, is_archived from raw_files.{} where valid_from >= '2026-06-30 16:00+00' order by 1"
    )
    assert warehouse.rows(standing.format("accounts")) == [("1", True), ("2", True), ("3", True)]
    assert warehouse.rows(standing.format("contacts")) == [("k1", True)]
    assert warehouse.rows("select is_archived from raw_files.contracts") == [(False,)]
    # And back again, a day later.
    ingest_crm_and_records(before, JULY + timedelta(days=1))
    newest = "select distinct on (record_id) is_archived from raw_files.accounts order by record_id, valid_from desc"
    assert warehouse.rows(newest) == [(False,)] * 3
    assert warehouse.value(
        "select bool_and(is_archived) from raw_hubspot.companies where valid_from >= '2026-07-01'"
    )
