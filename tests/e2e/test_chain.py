"""The whole chain over a small slice, as a user runs it: real processes, a real PostgreSQL, a real CRM protocol."""

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from include.local.chain import INGESTS
from include.local.processes import wait_until
from include.settings import PROJECT_DIR
from include.simulate.market.scales import DEMO, DEMO_SEED, LAST_DAY
from include.sources.record_contract import ENTITIES
from tests.e2e.installation import Installation
from tests.fixtures.market import write_slice

pytestmark = pytest.mark.extended  # one start and one run for all: everyday tests do not wait that long
CUSTOMERS = 90
PUBLISHED = ("customer_360", "tier_summary", "company_summary", "tier_migrations", "account_tiers")


@pytest.fixture(scope="module")
def slice_of_company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sources.yml over the simulated company's first customers, three months of their events, its CRM and its sync."""
    folder = tmp_path_factory.mktemp("slice")
    write_slice(folder, DEMO, DEMO_SEED, CUSTOMERS, events_since=str(LAST_DAY - timedelta(days=90)))
    sources = yaml.safe_load((PROJECT_DIR / "include" / "simulate" / "sources.yml").read_text())
    sources["orders"]["file"] = "orders.csv"
    sources["behavior"]["file"] = "events.csv"
    for given in sources["records"].values():
        given["file"] = given["file"].replace("${STRATUM_HOME}/simulated", "whole")
    sources["sync"] = str(PROJECT_DIR / "include" / "simulate" / sources["sync"])
    (folder / "sources.yml").write_text(yaml.safe_dump(sources))
    return folder / "sources.yml"


@pytest.fixture(scope="module")
def stratum(tmp_path_factory: pytest.TempPathFactory, slice_of_company: Path):
    installation = Installation(tmp_path_factory.mktemp("home") / "stratum")
    try:
        up = installation.run("up", "--sources", str(slice_of_company))
        assert up.returncode == 0, up.stderr
        yield installation
    finally:
        down = installation.run("down")
        left = installation.processes()
        for process in left:
            process.kill()
        assert down.returncode == 0, down.stderr
        assert not left, "`stratum down` left processes behind"


@pytest.fixture(scope="module")
def first(stratum: Installation, slice_of_company: Path) -> dict:
    return stratum.summary("--as-of", str(LAST_DAY), "--sources", str(slice_of_company))


def published(stratum: Installation, table: str) -> list[tuple]:
    """All rows of a published table but for the run that made them."""
    columns = [
        name
        for (name,) in stratum.rows(
            "select column_name from information_schema.columns "
            f"where table_schema = 'published' and table_name = '{table}' order by ordinal_position"
        )
        if name != "run_id"
    ]
    assert columns, f"published.{table} is missing"
    return sorted(stratum.rows(f"select {', '.join(columns)} from published.{table}"), key=repr)


def test_the_chain_ends_in_rows_the_crm_confirmed_and_the_numbers_add_up(
    stratum: Installation, first: dict
) -> None:
    orders = next(load for load in first["loads"] if load["entity"] == "order_lines")
    assert orders["rows_in"] == orders["rows_kept"] + orders["rows_quarantined"] > 0
    assert sum(orders["reasons"].values()) == orders["rows_quarantined"] > 0
    assert {load["source"] for load in first["loads"]} == {"orders", "crm", "behavior", "records"}
    absent = {load["entity"] for load in first["loads"] if load["status"] == "absent"}
    assert absent == {name for name, entity in ENTITIES.items() if entity.is_crm}, "the CRM is not of files"
    for load in first["loads"]:
        if load["entity"] in absent and load["source"] == "records":
            continue
        assert load["status"] == "loaded", load
        assert load["rows_in"] == load["rows_kept"] + load["rows_quarantined"] > 0, load
    (sync,) = first["syncs"]
    assert sync["queried"] == sync["sent"] + sync["unchanged"] + sync["failed"] + sync["held"]
    assert sync["sent"] > 0
    assert sync["failed"] == 0
    ((confirmed,),) = stratum.rows("select count(*) from sync.ledger")
    assert confirmed == sync["sent"]
    assert [gate["gate"] for gate in first["gates"]] == ["raw", "marts", "scores", "published", "sync"]
    assert all(gate["checks"] > 0 and gate["failed"] == 0 for gate in first["gates"])
    assert (stratum.home / "data_docs" / "index.html").is_file()


def test_every_account_of_a_model_is_scored_with_three_reasons(stratum: Installation, first: dict) -> None:
    assert first["scores"]["status"] == "scored"
    scored = stratum.rows(
        "select churn_definition, count(*), count(distinct churn_probability) from published.customer_360 "
        "where churn_probability between 0 and 1 and least(churn_reason_1, churn_reason_2, churn_reason_3) > '' "
        "group by 1"
    )
    ((lapse,),) = stratum.rows("select count(*) from published.account_scores where model = 'lapse'")
    wanted = {"no order": first["scores"]["accounts"]} | ({"contract lapse": lapse} if lapse else {})
    assert {definition: accounts for definition, accounts, _ in scored} == wanted
    ((differing,),) = stratum.rows("select count(distinct churn_probability) from published.customer_360")
    assert differing > 10, "the scores hardly differ"
    (meant,) = stratum.rows("select count(*) from published.customer_360 where churn_definition = 'no order'")
    assert meant == (first["scores"]["accounts"],)
    worth = [float(row["churn_probability"]) * float(row["net_revenue_365d"]) for row in first["at_risk"]]
    assert len(worth) == 10
    assert worth == sorted(worth, reverse=True)
    told = dict(stratum.rows("select field, count(distinct record_id) from sync.deliveries group by 1"))
    ((with_reasons,),) = stratum.rows(
        "select count(*) from published.customer_360 where churn_reason_1 > '' and crm_record_id is not null"
    )
    assert told["stratum_churn_reason_1"] == with_reasons
    assert told["stratum_churn_told_by"] == first["syncs"][0]["sent"]
    assert told["stratum_upsell_told_by"] == first["syncs"][0]["sent"]
    for field in ("upsell_probability", "upsell_next_best", "repurchase_expected_value"):
        ((with_value,),) = stratum.rows(
            f"select count({field}) from published.customer_360 where crm_record_id is not null"
        )
        assert told.get(f"stratum_{field}", 0) == with_value, field


def test_every_tier_share_is_reported_beside_its_target(first: dict) -> None:
    assert [tier["tier"] for tier in first["tiers"]] == ["S", "A", "B", "C"]
    assert sum(tier["accounts"] for tier in first["tiers"]) == first["company"][0]["accounts_ordered"]


def test_the_same_date_again_publishes_the_same_rows_and_calls_no_write(
    stratum: Installation, first: dict
) -> None:
    before = {table: published(stratum, table) for table in PUBLISHED}
    again = stratum.summary("--as-of", str(LAST_DAY))
    assert again["run_id"] != first["run_id"]
    assert {table: published(stratum, table) for table in PUBLISHED} == before
    assert again["syncs"][0]["sent"] == again["syncs"][0]["calls"] == 0
    assert again["syncs"][0]["unchanged"] == first["syncs"][0]["sent"] + first["syncs"][0]["unchanged"]


def test_a_backfill_fills_history_once_and_neither_moves_the_pointer_nor_calls_the_crm(
    stratum: Installation, first: dict
) -> None:
    before = published(stratum, "customer_360")
    syncs = stratum.rows("select count(*) from sync.runs")
    older = LAST_DAY - timedelta(days=31)
    for wanted in (1, 0):
        done = stratum.run("backfill", "--from", str(older), "--to", str(older), "--json")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout.splitlines()[-1])) == wanted
    assert published(stratum, "customer_360") == before
    assert stratum.rows("select count(*) from sync.runs") == syncs
    dates = {row[0] for row in stratum.rows("select distinct as_of_date from published.account_tiers")}
    assert dates == {older, LAST_DAY}
    runs = stratum.rows(f"select status, is_backfill from audit.runs where as_of_date = '{older}'")
    assert runs == [("published", True)]


def test_a_column_that_is_not_there_fails_with_one_line_and_publishes_nothing(
    stratum: Installation, first: dict, slice_of_company: Path
) -> None:
    before = {table: published(stratum, table) for table in PUBLISHED}
    loads = stratum.rows("select count(*) from audit.loads where entity = 'order_lines'")
    broken = yaml.safe_load(slice_of_company.read_text())
    broken["orders"]["columns"]["quantity"] = "no_such_column"
    path = slice_of_company.with_name("broken.yml")
    path.write_text(yaml.safe_dump(broken))
    done = stratum.run("run", "--as-of", str(LAST_DAY), "--sources", str(path))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no_such_column" in done.stderr
    assert {table: published(stratum, table) for table in PUBLISHED} == before
    assert stratum.rows("select count(*) from audit.loads where entity = 'order_lines'") == loads


def test_a_date_before_the_first_order_fails_with_one_line(
    stratum: Installation, slice_of_company: Path
) -> None:
    done = stratum.run("run", "--as-of", "2020-01-01", "--sources", str(slice_of_company))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "first" in done.stderr
    assert stratum.rows("select count(*) from audit.runs where as_of_date = '2020-01-01'") == [(0,)]


@pytest.mark.timeout(1800)
def test_a_lost_build_is_found_and_started(stratum: Installation, slice_of_company: Path) -> None:
    """Announcements that come while the build is paused are lost to it: the loss of the race, made on purpose."""
    key = date(2026, 6, 1)
    running = stratum.start("run", "--as-of", str(key), "--sources", str(slice_of_company))
    try:
        set_paused(stratum, "build_marts", True)
        wait_for_announcements(stratum, key)
        set_paused(stratum, "build_marts", False)
        printed, errors = running.communicate(timeout=900)
    finally:
        set_paused(stratum, "build_marts", False)
        running.kill()
    assert running.returncode == 0, errors
    assert "started no build: starting it by its key" in printed
    assert stratum.rows(f"select status from audit.runs where as_of_date = '{key}'") == [("published",)]


def set_paused(stratum: Installation, dag_id: str, paused: bool) -> None:
    stratum.api().call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})


def wait_for_announcements(stratum: Installation, key: date) -> None:
    api = stratum.api()

    def announced() -> bool:
        return all(any(run["state"] == "success" for run in api.runs(dag, key)) for dag in INGESTS)

    assert wait_until(announced, 600)
