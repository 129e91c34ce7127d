"""The dbt project itself: unit tests, descriptions that match the tables, contracts, a parse free of variables."""

import json
import re
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from include.dbt import DBT_PROJECT, build, invoke, lay_ground, parsed_project, profile_environment
from include.errors import StratumError
from include.warehouse.connect import connect
from tests.conftest import Warehouse
from tests.dbt.raw_rows import Line, Orders, at, land_company
from tests.fixtures.candidates import COLUMNS as CONTRACTS

AS_OF = date(2026, 6, 30)
TOLD_OF_CHURN = ("published_customer_360", "published_operating_list", "published_lists")
MODELS = sorted((DBT_PROJECT / "models").rglob("*.sql"))


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse) -> Warehouse:
    """A warehouse with a few accounts, built through all layers as of AS_OF."""
    Orders().land(
        AS_OF,
        [
            Line("1", "o1", "c1", at(AS_OF)),
            Line("2", "o2", "c2", at(AS_OF - timedelta(days=400)), country="DE"),
            Line("3", "o3", None, at(AS_OF)),
            Line("4", "o4", "c3", at(AS_OF + timedelta(days=1))),
        ],
    )
    land_company(AS_OF, "70", "c1", at(date(2026, 1, 1)), name="One", industry="mining", country="FR")
    land_company(AS_OF, "71", None, at(date(2026, 1, 1)), name="Prospect")
    land_company(AS_OF, "72", "c2", at(AS_OF + timedelta(days=1), 0), name="Not yet")
    lay_ground(AS_OF, "run-1", anew=True)
    for layer in ("staging", "marts"):
        build(layer, AS_OF, "run-1")
    _score("run-1", {"c1": "0.2", "c2": "0.199999"})
    build("published", AS_OF, "run-1")
    return module_warehouse


def _score(run_id: str, probabilities: dict[str, str]) -> None:
    """Write down that the run was scored, with these probabilities, the highest first."""
    with connect("scorer") as connection:
        connection.execute(
            "insert into ml.models select 'm1', 'churn', %s, 90, %s, %s, 9, 3, 'e', '{}', '[]', 'f', 'v', '', 's' "
            "on conflict do nothing",
            [AS_OF] * 3,
        )
        connection.execute(
            "insert into ml.runs (run_id, model, as_of_date, status, model_id, accounts) "
            "values (%s, 'churn', %s, 'scored', 'm1', %s)",
            [run_id, AS_OF, len(probabilities)],
        )
        for rank, (account, probability) in enumerate(probabilities.items(), start=1):
            connection.execute(
                "insert into ml.scores values (%s, 'churn', %s, %s, 'm1', %s, %s, 'one', 'two', 'three')",
                [run_id, account, AS_OF, probability, rank],
            )


def test_unit_tests_of_every_ruled_model_pass(built: Warehouse) -> None:
    results = invoke(["test", "--select", "test_type:unit"], AS_OF, "run-unit")
    tested = {result.node_id.split(".")[2] for result in results}
    assert tested >= {"stg_order_lines", "int_account_days", "account_features", "account_profiles"}
    assert tested >= {"account_rfm", "account_tiers", "account_lifecycle", "int_account_crosswalk"}
    assert tested >= {"int_identity_links", "int_account_merges", "int_identity_issues"}
    assert tested >= {"int_usage_days", "stg_events", "stg_hubspot_tickets", "account_next_orders"}
    assert {result.status for result in results} == {"pass"}


def test_every_model_has_a_description_that_ends_with_its_grain() -> None:
    assert len(MODELS) >= 10
    for model in MODELS:
        described = {entry["name"]: entry for entry in _yaml(model.with_suffix(".yml"))["models"]}
        assert re.search(r"One row per [^.]+\.$", described[model.stem]["description"].strip()), model.stem


def test_every_column_of_every_table_is_described_and_no_other(built: Warehouse) -> None:
    files = sorted((DBT_PROJECT / "seeds").rglob("*.yml"))
    seeds = [seed for file in files for seed in _yaml(file)["seeds"]]
    tables = [(seed["name"], seed) for seed in seeds]
    for model in MODELS:
        (entry,) = _yaml(model.with_suffix(".yml"))["models"]
        tables.append((model.stem.removeprefix("published_"), entry))
    for table, entry in tables:
        schema = "candidate" if entry["name"].startswith("published_") else "%"
        found = built.rows(
            "select column_name from information_schema.columns where table_name = %s and table_schema like %s "
            "and table_schema in ('staging', 'intermediate', 'identity', 'marts', 'candidate') "
            "and (table_schema = 'candidate') = %s",
            table,
            schema,
            schema == "candidate",
        )
        assert {name for (name,) in found} == {column["name"] for column in entry["columns"]}, table
        assert all(column.get("description") for column in entry["columns"]), table


@pytest.mark.parametrize("table", sorted(CONTRACTS))
def test_published_tables_keep_their_contract(built: Warehouse, table: str) -> None:
    promised = ["run_id text", "as_of_date date"]
    for column in re.split(r",(?![^(]*\))", CONTRACTS[table]):
        name, *kind = column.split()
        promised.append(f"{name} {''.join(kind)}")
    kept = built.rows(
        "select attname || ' ' || replace(format_type(atttypid, atttypmod), ' ', '') from pg_attribute "
        "where attrelid = ('candidate.' || %s)::regclass and attnum > 0 and not attisdropped order by attnum",
        table,
    )
    assert [column for (column,) in kept] == promised


def test_published_rows_belong_to_the_run_and_hold_who_ordered_or_is_in_the_crm(built: Warehouse) -> None:
    rows = built.rows(
        "select account_id, account_name, crm_record_id, country, has_ordered, tier, next_action, "
        "days_since_last_order from candidate.customer_360 "
        "where run_id = 'run-1' and as_of_date = '2026-06-30' order by account_id"
    )
    assert rows == [
        ("c1", "One", "70", "FR", True, "A", "call-back and offer", 0),
        ("c2", None, None, "DE", True, "C", "win-back", 400),
        ("hubspot:71", "Prospect", "71", None, False, None, None, None),
    ]
    assert built.rows(
        "select tier, accounts, actual_share::float from candidate.tier_summary order by tier"
    ) == [
        ("A", 1, 0.5),
        ("B", 0, 0.0),
        ("C", 1, 0.5),
        ("S", 0, 0.0),
    ]
    company = built.rows(
        "select accounts, accounts_ordered, accounts_dormant, order_lines, order_lines_unattributed, "
        "net_revenue_total::float, net_revenue_unattributed::float from candidate.company_summary"
    )
    assert company == [(3, 2, 1, 3, 1, 30.0, 10.0)]


def test_published_rows_carry_stage_use_crm_and_scores(built: Warehouse) -> None:
    rows = built.rows(
        "select account_id, age_stage, logins_30d, days_since_last_login, open_tickets, nps_latest, "
        "open_deal_amount::float, contacts, has_decision_maker, churn_probability::float, churn_rank, churn_risk, "
        "churn_reason_1, churn_reason_3, churn_model_id from candidate.customer_360 order by account_id"
    )
    assert rows == [
        ("c1", "new", 0, None, 0, None, 0, 0, False, 0.2, 1, "high", "one", "three", "m1"),
        ("c2", "declining", 0, None, 0, None, 0, 0, False, 0.199999, 2, "normal", "one", "three", "m1"),
        ("hubspot:71", *[None] * 14),
    ]


def test_kpis_of_sources_that_a_company_lacks_are_null_and_say_why(built: Warehouse) -> None:
    """It has orders and CRM companies: no opportunities, spend, tickets, answers, referrals, events, contracts."""
    rows = built.rows(
        "select distinct kpi, value is null and no_value_reason is not null from marts.kpis "
        "where kpi like any (array['%trial%', 'cac', '%roi', 'ticket%', '%nps', 'csat%', 'detractors%', 'referr%', "
        "'loyal_referred%', 'purchase_flow%', 'contract%']) order by 1"
    )
    assert [row for row in rows if not row[1]] == []
    assert len(rows) == 22
    assert built.rows(
        "select distinct kpi, no_value_reason from marts.kpis where as_of_date = %s "
        "and kpi in ('cac', 'contracts_waiting', 'referred_share_of_new_accounts') order by 1",
        AS_OF,
    ) == [
        ("cac", "no spend is known of the month"),
        ("contracts_waiting", "no contract is known"),
        ("referred_share_of_new_accounts", "no referral is known"),
    ]


def test_a_run_without_scores_is_published_without_any_and_one_half_scored_is_not(built: Warehouse) -> None:
    build("published", AS_OF, "run-absent")
    assert built.value("select count(*) from candidate.customer_360 where run_id = 'run-absent'") == 3
    assert built.value("select count(churn_probability) from candidate.customer_360") == 0
    assert ("c1", "targeted offer") in built.rows(
        "select account_id, next_action from candidate.customer_360"
    )
    assert built.rows(
        "select account_id, churn_told_by, churn_warning_severity, churn_told_by_reason "
        "from candidate.customer_360 order by 1"
    ) == [
        ("c1", "nothing", "unknown", "no model was asked in this run"),
        ("c2", "nothing", "unknown", "no model was asked in this run"),
        (
            "hubspot:71",
            "nothing",
            "unknown",
            "it has not ordered: neither the model nor the rules speak of it",
        ),
    ]
    assert built.rows(
        "select distinct has_ordered, upsell_told_by, upsell_told_by_reason, repurchase_told_by_reason, upsell_chance "
        "from candidate.customer_360 order by 1"
    ) == [
        (ordered, "nothing", why, why, None)
        for ordered, why in (
            (False, "it has not ordered: the model does not speak of it"),
            (True, "no model was asked in this run"),
        )
    ]
    _score("run-half", {"c1": "0.5"})
    with pytest.raises(StratumError, match="assert_scores_are_published"):
        build("published", AS_OF, "run-half")
    build("published", AS_OF, "run-1")


def test_where_no_model_serves_the_warning_rules_do_and_say_so_on_every_surface(built: Warehouse) -> None:
    built.rows(
        "update marts.account_warnings set severity = 'high', warnings = 'no login for 30 days; tickets rise', "
        "rules_warning = 2, unknown_reason = 'NPS falls: no NPS answer is loaded up to the date'"
    )
    with connect("scorer") as connection:
        connection.execute(
            "insert into ml.runs (run_id, model, as_of_date, status, reason, accounts) "
            "select 'run-rules', unnest(array['churn', 'upsell']), %s, 'absent', 'too few month-ends', 0",
            [AS_OF],
        )
    build("published", AS_OF, "run-rules", only=TOLD_OF_CHURN)
    assert built.rows(
        "select account_id, churn_told_by, churn_warning_severity, churn_warnings_count, churn_warnings, "
        "churn_warnings_unknown, churn_told_by_reason, churn_probability, churn_risk "
        "from candidate.customer_360 where has_ordered order by 1"
    ) == [
        (
            account,
            "rules",
            "high",
            2,
            "no login for 30 days; tickets rise",
            "NPS falls: no NPS answer is loaded up to the date",
            "too few month-ends",
            None,
            None,
        )
        for account in ("c1", "c2")
    ]
    assert (
        built.rows(
            "select upsell_probability, upsell_told_by, upsell_told_by_reason, repurchase_told_by_reason "
            "from candidate.customer_360 where has_ordered"
        )
        == [(None, "nothing", "too few month-ends", "no model was asked in this run")] * 2
    )
    told = "net revenue of the last 365 days: no probability is told"
    assert built.rows(
        "select account_id, amount::float, amount_is, reason from candidate.operating_list where list = 'churn risk'"
    ) == [
        (
            "c1",  # c2 is dormant
            10.0,
            told,
            "By warning rules, no model serves (too few month-ends): no login for 30 days; tickets rise. Not known: "
            "NPS falls: no NPS answer is loaded up to the date. Number 1 of 1 by amount; 20 are due a day.",
        )
    ]
    assert built.rows(
        "select list_rows, amount::float, amount_is from candidate.lists where list = 'churn risk'"
    ) == [(1, 10.0, told)]
    built.rows("update marts.account_warnings set severity = 'medium'")
    build("published", AS_OF, "run-rules", only=TOLD_OF_CHURN)
    assert not built.value("select count(*) from candidate.operating_list where list = 'churn risk'")
    built.rows("update marts.account_warnings set severity = null, warnings = null, rules_warning = null")
    build("published", AS_OF, "run-1", only=TOLD_OF_CHURN)
    assert built.rows(
        "select account_id, churn_told_by, churn_told_by_reason from candidate.customer_360 "
        "where has_ordered order by 1"
    ) == [
        ("c1", "model", "a model tells a probability, and its reasons"),
        ("c2", "model", "a model tells a probability, and its reasons"),
    ]


def test_a_run_without_clusters_and_lists_says_so_and_recommends_nothing(built: Warehouse) -> None:
    assert built.rows(
        "select account_id, cluster_id, no_cluster_reason from candidate.account_clusters order by 1"
    ) == [
        ("c1", None, "no clusters were looked for in this run"),
        ("c2", None, "no clusters were looked for in this run"),
    ]
    assert built.rows("select distinct no_recommendation_reason from candidate.customer_360") == [
        ("no recommendations were looked for in this run",)
    ]
    for table in ("cluster_profiles", "recommendations"):
        assert built.value(f"select count(*) from candidate.{table}") == 0


def test_nothing_is_written_into_the_project_and_no_node_is_left_out_of_the_books(built: Warehouse) -> None:
    assert not [
        name for name in ("target", "logs", ".user.yml", "dbt_packages") if (DBT_PROJECT / name).exists()
    ]
    models = {f"model.stratum.{model.stem}" for model in MODELS}
    recorded = built.rows("select node_id, as_of_date from audit.dbt_nodes where run_id = 'run-1'")
    assert models <= {node_id for node_id, _ in recorded}
    assert {as_of for _, as_of in recorded} == {AS_OF}


def test_the_kept_parse_holds_no_variable_of_a_run(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable resolved by parsing would be that of the first run for ever."""
    import os

    home = Path(os.environ["STRATUM_HOME"]) / "dbt"
    (kept,) = home.glob("manifest-*.msgpack")
    kept.unlink()
    sentinels = {
        "as_of_date": "1987-06-05",
        "run_id": "sentinel-run",
        "company_timezone": "Pacific/Chatham",
        "reporting_currency": "XTS",
        "definition": "sentinel-definition",
        "features_definition": "sentinel-features-definition",
    }
    monkeypatch.setattr("include.dbt._variables", lambda as_of, run_id: sentinels)
    results = invoke(
        ["build", "--select", "thresholds", "--exclude-resource-type", "test"], AS_OF, "run-sentinel"
    )
    assert len(results) == 1
    (kept,) = home.glob("manifest-*.msgpack")
    parsed = kept.read_bytes()
    assert b"int_account_days" in parsed
    assert [name for name, value in sentinels.items() if value.encode() in parsed] == []


def test_no_model_is_ephemeral(built: Warehouse) -> None:
    """One build after another is given the same parsed project, in which dbt would keep its SQL of the first date."""
    with profile_environment(built.owner_url):
        nodes = parsed_project().nodes.values()
    kinds = {node.config.materialized for node in nodes if node.resource_type == "model"}
    assert {"view", "table", "incremental"} <= kinds
    assert "ephemeral" not in kinds


def test_keys_that_are_not_tested_every_day_are_enforced_by_a_unique_index(built: Warehouse) -> None:
    enforced = {
        (table, frozenset(columns))
        for table, columns in built.rows(
            "select relname, array_agg(attname::text) from pg_index join pg_class on pg_class.oid = indrelid "
            "join pg_attribute on attrelid = indrelid and attnum = any(indkey) "
            "where indisunique and relnamespace = 'marts'::regnamespace group by relname, indexrelid"
        )
    }
    project = yaml.safe_load((DBT_PROJECT / "dbt_project.yml").read_text())
    folders = project["data_tests"]["stratum"]["marts"]
    keys = {
        (model["name"], frozenset(test["unique_combination"]["arguments"]["columns"]))
        for folder, given in folders.items()
        if "indexed" in given["+tags"]
        for path in (DBT_PROJECT / "models" / "marts" / folder).rglob("*.yml")
        for model in _yaml(path).get("models", [])
        for test in model.get("data_tests", [])
        if "unique_combination" in test
    }
    assert len(keys) > 30
    assert keys - enforced == set()


def test_a_failing_node_is_named_with_what_the_database_said(built: Warehouse) -> None:
    built.rows("alter table marts.account_tiers add constraint refuse check (tier_rank < 0) not valid")
    with pytest.raises(StratumError) as failure:
        build("marts", AS_OF, "run-failing")
    built.rows("alter table marts.account_tiers drop constraint refuse")
    message = str(failure.value)
    assert "model.stratum.account_tiers (error)" in message
    assert 'violates check constraint "refuse"' in message
    assert "\n" not in message
    assert "password" not in message


def test_each_node_is_logged_as_it_ends(built: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="include.dbt"):
        invoke(["seed", "--select", "thresholds"], AS_OF, "run-logged")
    assert [line for line in caplog.messages if line.startswith("seed.stratum.thresholds success in ")]


@pytest.mark.extended
def test_policy_and_views_are_made_once_and_again_where_one_is_gone_or_failed(built: Warehouse) -> None:
    def made(run_id: str) -> set[str]:
        return {node.resource_type for node in build("staging", AS_OF, run_id)}

    def seeds(run_id: str) -> object:
        return built.value(
            "select count(*) from audit.dbt_nodes where run_id = %s and resource_type = 'seed'", run_id
        )

    assert made("run-again") == {"model", "test"}
    assert seeds("run-again") == 0
    assert built.value(
        "select count(*) from audit.dbt_nodes where run_id = 'run-again' and node_id like '%in_force'"
    )
    built.rows("drop view staging.stg_events")
    assert "seed" in made("run-view-gone")
    built.rows("drop view staging.stg_events")
    built.rows("alter table marts.tier_shares add constraint refuse check (target_share < 0) not valid")
    with pytest.raises(StratumError, match=r"seed\.stratum\.tier_shares \(error\)"):
        build("staging", AS_OF, "run-refused")
    built.rows("alter table marts.tier_shares drop constraint refuse")
    assert seeds("run-refused")
    assert "seed" in made("run-mended")
    assert "seed" not in made("run-after")


def test_policy_that_does_not_sum_to_one_fails_the_build(built: Warehouse) -> None:
    with pytest.raises(StratumError, match="assert_policy_is_in_force"):
        invoke(["test", "--select", "assert_policy_is_in_force"], date(1999, 12, 31), "run-before-policy")


def _yaml(path: Path) -> dict:
    document = yaml.safe_load(path.read_text())
    assert document["version"] == 2
    return json.loads(json.dumps(document, default=str))
