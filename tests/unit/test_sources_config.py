"""sources.yml is read as written, or one line says which key of which file is wrong."""

from pathlib import Path

import pytest

from include.errors import StratumError
from include.settings import PROJECT_DIR, get_settings
from include.sources.config import Sources, load_sources
from include.sources.row_sources import DatabaseOrders

ORDERS = """
orders:
  file: orders.csv
  columns: {order_id: a, customer_id: b, product_id: c, quantity: d, unit_price: e, currency: "'CNY'", ordered_at: f}
"""

DATABASE = ORDERS.replace("file: orders.csv", "connection: erp\n  table: sales.order_lines")

BEHAVIOR = """
behavior:
  file: events/*.csv.gz
  columns: {event_name: a, event_at: b}
"""


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STRATUM_TIMEZONE", "Asia/Tokyo")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def load(folder: Path, text: str) -> Sources:
    path = folder / "sources.yml"
    path.write_text(text)
    return load_sources(path)


WRONG = {
    "a key that is not known": ("company: {name: x, timezon: UTC}", "'company.timezon' is not known"),
    "a section that is not known": ("company: {name: x}\nordres: {}", "'ordres' is not known"),
    "a column that is no part of the contract": (
        "company: {name: x}" + ORDERS.replace("order_id: a", "order_id: a, colour: z"),
        "'orders.columns.colour' is not known",
    ),
    "a missing section": ("crm: {system: hubspot}", "'company' is missing"),
    "a missing column": (
        "company: {name: x}" + ORDERS.replace("ordered_at: f", "country: f"),
        "'orders.columns.ordered_at' is missing",
    ),
    "an unknown time zone": ("company: {name: x, timezone: Mars/Base}", "'Mars/Base' is not a time zone"),
    "an unknown time zone of a file": (
        "company: {name: x}" + ORDERS + "  timezone: Mars/Base",
        "'Mars/Base' is not a time zone",
    ),
    "an account number field of a system that has none": (
        "company: {name: x}\ncrm: {system: hubspot, account_number_field: No__c}",
        "account_number_field is a key of salesforce and bottlecrm, not of hubspot",
    ),
    "an account number field that is no field": (
        "company: {name: x}\ncrm: {system: salesforce, account_number_field: 'Id from User'}",
        "crm.account_number_field: it must be the name of a field: a letter, then letters, digits and _, but it is 'Id from",
    ),
    "a currency that is no code": ("company: {name: x, currency: yuan}", "'yuan' is not a currency code"),
    "a file of another kind": (
        "company: {name: x}" + ORDERS.replace("orders.csv", "orders.xlsx"),
        "orders.xlsx' is not a kind of file",
    ),
    "a reason of ours": (
        "company: {name: x}" + ORDERS + "  quarantine: [{reason: missing_price, when: 'true'}]",
        "'missing_price' is a reason of Stratum's own",
    ),
    "a reason named twice": (
        "company: {name: x}" + ORDERS + "  quarantine: [{reason: odd, when: a}, {reason: odd, when: b}]",
        "the reason 'odd' twice",
    ),
    "a key column that is not mapped": (
        "company: {name: x}" + ORDERS + "  key: [order_id, product_name]",
        "'product_name', which columns does not map",
    ),
    "orders of no kind": (
        "company: {name: x}\norders: {table: a}",
        "orders: it names both file and connection, or neither",
    ),
    "orders of two kinds": (
        "company: {name: x}" + DATABASE + "  file: orders.csv",
        "orders: it names both file and connection, or neither",
    ),
    "a table and a query": (
        "company: {name: x}" + DATABASE + "  query: select 1",
        "orders: it names both table and query, or neither",
    ),
    "neither table nor query": (
        "company: {name: x}" + DATABASE.replace("table: sales.order_lines", "timezone: UTC"),
        "orders: it names both table and query, or neither",
    ),
    "a cursor without a key": (
        "company: {name: x}" + DATABASE + "  cursor: changed_at",
        "orders: cursor needs key",
    ),
    "a table without a name": (
        "company: {name: x}" + DATABASE.replace("sales.order_lines", "'sales.'"),
        "'sales.' is not the name of a table",
    ),
    "a key of files in a database": (
        "company: {name: x}" + DATABASE + "  delimiter: ','",
        "'orders.delimiter' is not known",
    ),
    "targets that stand in the file itself": (
        "company: {name: x}\nsync: {crm: {system: hubspot, fields: {a: tier}}}",
        "sync names the file that says what each target is told",
    ),
    "a missing column of events": (
        "company: {name: x}" + BEHAVIOR.replace("event_at: b", "feature: b"),
        "'behavior.columns.event_at' is missing",
    ),
    "a column that is no part of an event": (
        "company: {name: x}" + BEHAVIOR.replace("event_at: b", "event_at: b, amount: c"),
        "'behavior.columns.amount' is not known",
    ),
    "a key of orders alone": (
        "company: {name: x}" + BEHAVIOR + "  key: [event_name]",
        "'behavior.key' is not known",
    ),
    "events in a file of another kind": (
        "company: {name: x}" + BEHAVIOR.replace("csv.gz", "log"),
        "behavior.file: '" + "{folder}/events/*.log' is not a kind of file",
    ),
    "a reason of ours for events": (
        "company: {name: x}" + BEHAVIOR + "  quarantine: [{reason: duration_negative, when: 'true'}]",
        "'duration_negative' is a reason of Stratum's own",
    ),
    "a name in the place of a section": (
        "company: X",
        "company: it must be a mapping with the keys name (needed), timezone, currency, but it is 'X'.",
    ),
    "a section that is empty": ("company:", "name (needed), timezone, currency, but it is empty."),
    "a key that is mistyped": (
        "company: {nam: x}",
        "the key 'company.nam' is not known. Is it a typo, or one level too deep or too high? The keys there are name",
    ),
    "a key of the top": ("name: x", "the key 'name' is not known."),
    "a number for a text": (
        "company: {name: 3}",
        "company.name: it must be text, in quotes where it looks like something else, but it is 3.",
    ),
    "no text": ("company: {name: ''}", "company.name: it must not be empty, but it is ''."),
    "a list for columns": (
        "company: {name: x}\nbehavior: {file: a.csv, columns: [event_name]}",
        "behavior.columns: it must be a mapping with the keys event_id, ",
    ),
    "a text for a list": (
        "company: {name: x}" + ORDERS + "  key: order_id",
        "orders.key: it must be a list, but",
    ),
    "a list of nothing": (
        "company: {name: x}" + ORDERS + "  key: []",
        "orders.key: it must not be empty, but",
    ),
    "a delimiter of two": (
        "company: {name: x}" + ORDERS + "  delimiter: '||'",
        "orders.delimiter: it must be no longer than 1, but it is '||'.",
    ),
    "an overlap of half a second": (
        "company: {name: x}" + DATABASE + "  overlap: 0.5",
        "orders.overlap: it must be a whole number, but it is 0.5.",
    ),
    "an overlap of a word": (
        "company: {name: x}" + DATABASE + "  overlap: an hour",
        "orders.overlap: it must be a whole number, but it is 'an hour'.",
    ),
    "an overlap below none": (
        "company: {name: x}" + DATABASE + "  overlap: -1",
        "orders.overlap: it must be 0 or more, but it is -1.",
    ),
    "no YAML": ("company: [}", "is not valid YAML"),
    "no mapping": ("- company", "must be a mapping"),
    "a variable that is not set": ("company: {name: '${NOT_SET_HERE}'}", "NOT_SET_HERE, which is not set"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StratumError) as fault:
        load(tmp_path, text)
    message = str(fault.value).replace("${", "").replace("}", "")
    assert said.replace("{folder}", str(tmp_path)) in message
    assert str(tmp_path / "sources.yml") in message
    assert "\n" not in message


WRONG_SYNC = {
    "a system that is not known": (
        "crm: {system: fax, fields: {a: tier}}",
        "crm.system: it must be 'hubspot', 'salesforce', 'bottlecrm' or 'webhook', but it is 'fax'.",
    ),
    "no system": ("crm: {fields: {a: tier}}", "'crm.system' is missing"),
    "a sync to another system than is pulled": (
        "crm: {system: salesforce, fields: {a: tier}}",
        "the system of crm is salesforce and crm.system hubspot",
    ),
    "two targets with one set of books": (
        "{a: {system: hubspot, fields: {a: tier}}, b: {system: hubspot, fields: {b: tier}}}",
        "two targets are hubspot:hubspot_default",
    ),
    "a rule that is not known": (
        "crm: {system: hubspot, fields: {a: {column: tier, nulls: keep}}}",
        "'crm.fields.a.nulls' is not known",
    ),
    "a share above one": (
        "crm: {system: hubspot, fields: {a: tier}, brakes: {max_tier_changes: 20}}",
        "crm.brakes.max_tier_changes: it must be 1.0 or less, but it is 20.",
    ),
    "records that are to be made without a key": (
        "crm: {system: hubspot, fields: {a: tier}, create: true, create_fields: {name: account_name}}",
        "create: true needs external_key",
    ),
    "records that are to be made where no key is unique": (
        "crm: {system: bottlecrm, fields: {a: tier}, create: true, external_key: k}",
        "create: true is not possible with bottlecrm: its API makes accounts by no unique key",
    ),
    "companies without a name or a domain": (
        "crm: {system: hubspot, fields: {a: tier}, create: true, external_key: k}",
        "a record of companies cannot be made without name or domain",
    ),
    "a record that the next pull would not know": (
        "crm: {system: hubspot, fields: {a: tier}, create: true, external_key: k, create_fields: {name: account_name}}",
        "crm makes records without account_number, by which the next pull knows whose they are: add "
        "account_number: account_id to its create_fields",
    ),
    "an account of Salesforce without its name": (
        "crm: {system: salesforce, fields: {A__c: tier}, create: true, external_key: K__c}",
        "a record of Account cannot be made without Name",
    ),
    "a key that is told again": (
        "crm: {system: hubspot, fields: {k: tier, name: tier}, create: true, external_key: k}",
        "k is among fields, which are told again",
    ),
    "a key of records that are not made": (
        "crm: {system: hubspot, fields: {a: tier}, external_key: k}",
        "external_key and create_fields are of create: true",
    ),
    "a key of a webhook": (
        "hook: {system: webhook, fields: {a: tier}, create: true, external_key: k}",
        "a webhook's rows bear their account_id",
    ),
    "a rule that needs reading, of a target that cannot be read": (
        "hook: {system: webhook, fields: {a: {column: tier, overwrite: if_ours}, b: tier}}",
        "overwrite of a depends on what the target holds, and a webhook cannot be read",
    ),
    "reading back on a schedule what cannot be read": (
        "hook: {system: webhook, fields: {a: tier}, reconcile: {}}",
        "a webhook cannot be read: leave it out",
    ),
    "a rule that clears what it may not overwrite": (
        "crm: {system: hubspot, fields: {a: {column: tier, when_null: clear, overwrite: if_empty}}}",
        "when_null: clear needs overwrite: if_ours or always",
    ),
    "an object that the system's target does not tell": (
        "crm: {system: hubspot, object: contacts, fields: {a: tier}}",
        "object contacts of hubspot cannot be told, only companies",
    ),
    "fields that are a list": (
        "crm: {system: hubspot, fields: [tier]}",
        "crm.fields: it must be a mapping, but it is ['tier'].",
    ),
    "no fields": ("crm: {system: hubspot, fields: {}}", "crm.fields: it must not be empty, but it is {}."),
    "a word for yes": (
        "crm: {system: hubspot, fields: {a: tier}, create: perhaps}",
        "crm.create: it must be true or false, but it is 'perhaps'.",
    ),
    "a list for yes": (
        "crm: {system: hubspot, fields: {a: tier}, create: [yes]}",
        "crm.create: it must be true or false, but it is [True].",
    ),
    "a share in words": (
        "crm: {system: hubspot, fields: {a: tier}, brakes: {max_shrink: half}}",
        "crm.brakes.max_shrink: it must be a number, but it is 'half'.",
    ),
    "a share of a list": (
        "crm: {system: hubspot, fields: {a: tier}, brakes: {max_shrink: [1]}}",
        "crm.brakes.max_shrink: it must be a number, but it is [1].",
    ),
    "no step": (
        "crm: {system: hubspot, fields: {a: tier}, brakes: {score_step: 0}}",
        "crm.brakes.score_step: it must be more than 0.0, but it is 0.",
    ),
    "a count of a list": (
        "crm: {system: hubspot, fields: {a: tier}, brakes: {max_creations: [1]}}",
        "crm.brakes.max_creations: it must be a whole number, but it is [1].",
    ),
    "no mapping": ("- crm", "must be a mapping of targets"),
}


@pytest.mark.parametrize(("text", "said"), WRONG_SYNC.values(), ids=WRONG_SYNC.keys())
def test_what_is_wrong_in_a_sync_file_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "sync.yml").write_text(text)
    with pytest.raises(StratumError) as fault:
        load(tmp_path, "company: {name: x}\ncrm: {system: hubspot}\nsync: sync.yml")
    assert str(fault.value).removeprefix("The sync file ").startswith(str(tmp_path / "sync.yml"))
    assert said in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_field_of_a_sync_file_is_a_column_or_a_rule(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CRM", "salesforce")
    (tmp_path / "sync.yml").write_text(
        "crm: {system: '${CRM}', fields: {Tier__c: tier, Risk__c: {column: churn_risk, when_null: clear}}}"
    )
    (mapping,) = load(tmp_path, "company: {name: x}\nsync: sync.yml").sync.values()
    assert (mapping.target, mapping.object) == ("salesforce:salesforce_default", "Account")
    assert mapping.columns == {"Tier__c": "tier", "Risk__c": "churn_risk"}
    assert [rule.when_null for rule in mapping.fields.values()] == ["keep", "clear"]


def test_a_sync_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StratumError, match=r"sync file .*/none\.yml cannot be read: No such file"):
        load(tmp_path, "company: {name: x}\nsync: none.yml")


def test_a_sources_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StratumError, match=r"none\.yml cannot be read: No such file"):
        load_sources(tmp_path / "none.yml")


def test_absent_sources_are_none_and_the_company_falls_back_on_the_settings(tmp_path: Path) -> None:
    sources = load(tmp_path, "company: {name: x}")
    assert (sources.orders, sources.crm, sources.behavior, sources.sync) == (None, None, None, {})
    assert (sources.company.timezone, sources.company.currency) == ("Asia/Tokyo", "CNY")


def test_a_relative_file_starts_at_the_folder_of_the_yml(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "orders.csv").write_text("a\n")
    sources = load(tmp_path, "company: {name: x}" + ORDERS)
    assert sources.orders is not None
    assert sources.orders.files() == [tmp_path / "orders.csv"]
    (tmp_path / "events").mkdir()
    for month in ("2024-02", "2024-01"):
        (tmp_path / "events" / f"{month}.csv.gz").touch()
    behavior = load(tmp_path, "company: {name: x}" + BEHAVIOR).behavior
    assert behavior is not None
    assert behavior.files() == [tmp_path / "events" / f"{month}.csv.gz" for month in ("2024-01", "2024-02")]


def test_a_variable_is_replaced_from_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WHERE", str(tmp_path / "data"))
    sources = load(tmp_path, "company: {name: x}" + ORDERS.replace("orders.csv", "${WHERE}/2024/*.csv"))
    assert sources.orders is not None
    assert sources.orders.file == f"{tmp_path}/data/2024/*.csv"
    with pytest.raises(StratumError, match=r"There is no file .*/data/2024/\*\.csv"):
        sources.orders.files()


def test_a_path_with_brackets_is_a_path_before_it_is_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("a\n")
    sources = load(tmp_path, "company: {name: x}" + ORDERS.replace("orders.csv", "'a[1].csv'"))
    assert sources.orders is not None
    assert sources.orders.files() == [tmp_path / "a[1].csv"]


def test_the_files_that_are_shipped_are_valid(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STRATUM_DATA", "/data")
    simulated = load_sources(PROJECT_DIR / "include" / "simulate" / "sources.yml")
    assert simulated.orders is not None
    assert simulated.orders.file == str(tmp_path / "home" / "simulated" / "orders.parquet")
    assert simulated.behavior is not None
    assert simulated.behavior.file == str(tmp_path / "home" / "simulated" / "events" / "*.parquet")
    assert simulated.sync["hubspot"].columns["stratum_tier"] == "tier"
    retail = load_sources(PROJECT_DIR / "docs" / "examples" / "online_retail_ii.yml")
    assert retail.orders is not None
    assert retail.orders.file == "/data/online_retail_ii.parquet"
    assert (retail.crm, retail.sync) == (None, {})


def database(folder: Path, line: str) -> Sources:
    return load(folder, "company: {name: x}" + DATABASE.replace("table: sales.order_lines", line))


@pytest.mark.parametrize(
    "query",
    [
        "delete from lines",
        "update lines set a = 1",
        "select 1; delete from lines",
        "select 1) q; delete from lines; select * from (select 1",
        "select 1) q, (select 2",
        "call pay()",
        "-- select\ndrop table lines",
    ],
)
def test_a_query_that_is_not_one_select_is_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(StratumError, match=r"orders\.query: it must be one SELECT statement that only reads"):
        database(tmp_path, f"query: {query!r}")


def test_a_select_may_hold_what_looks_like_more(tmp_path: Path) -> None:
    query = "WITH a AS (SELECT ';)' AS b, \"x;(\" FROM t -- ; (\n) /* ; */ SELECT * FROM a"
    sources = database(tmp_path, f"query: |\n    {query.replace(chr(10), chr(10) + '    ')};")
    assert isinstance(sources.orders, DatabaseOrders)
    assert sources.orders.query == query


def test_a_connection_that_is_a_url_is_refused_without_its_password(tmp_path: Path) -> None:
    text = "company: {name: x}" + DATABASE.replace(
        "connection: erp", "connection: 'mysql://u:hidden-word@h/d'"
    )
    with pytest.raises(
        StratumError, match=r"orders\.connection: it is not the id of an Airflow connection"
    ) as fault:
        load(tmp_path, text)
    assert "hidden-word" not in str(fault.value)


def test_orders_of_a_database_need_no_file(tmp_path: Path) -> None:
    sources = database(tmp_path, "table: sales.order_lines\n  cursor: id\n  key: [id]")
    assert isinstance(sources.orders, DatabaseOrders)
    assert (sources.orders.origin, sources.orders.overlap) == ("sales.order_lines at erp", 3600)


def test_a_crm_is_reached_by_the_connection_of_its_system_unless_another_is_named(tmp_path: Path) -> None:
    for crm, connection, field in (
        ("{system: hubspot}", "hubspot_default", ""),
        ("{system: salesforce}", "salesforce_default", "AccountNumber"),
        ("{system: salesforce, connection: mine}", "mine", "AccountNumber"),
        ("{system: bottlecrm}", "bottlecrm_default", "account_number"),
        ("{system: bottlecrm, account_number_field: erp}", "bottlecrm_default", "erp"),
    ):
        found = load(tmp_path, f"company: {{name: x}}\ncrm: {crm}").crm
        assert found is not None
        assert (found.connection, found.account_number_field) == (connection, field)


EVENTS_AT = "company: {name: x}\nbehavior: {file: 'FILE', columns: {event_name: a, event_at: b}MORE}"


def test_events_may_lie_in_a_store_as_the_url_says(tmp_path: Path) -> None:
    for url in (
        "s3://bucket/a/**/*.parquet",
        "gs://bucket/1.csv.gz",
        "gcs://bucket/1.jsonl",
        "az://box/a?.csv",
        "abfss://box@account.dfs.core.windows.net/a/*.parquet",
    ):
        text = EVENTS_AT.replace("FILE", url).replace("MORE", ", connection: store")
        behavior = load(tmp_path, text).behavior
        assert behavior is not None
        assert (behavior.file, behavior.connection) == (url, "store")


@pytest.mark.parametrize(
    ("file", "more", "said"),
    [
        ("s3://key:hidden-word@bucket/*.csv", "", "it names no bucket or container alone"),
        ("az://box/a.csv?sig=hidden-word", "", "'az://box/a.csv' is not a kind of file"),
        ("https://hidden-word@host/a.csv", "", "files at https:// are not read here"),
        ("events.csv", ", connection: store", "connection is for files in an object store"),
        (
            "s3://box/1.csv",
            ", connection: 's3://k:hidden-word@h'",
            "it is not the id of an Airflow connection",
        ),
    ],
)
def test_what_is_no_place_of_events_is_refused_without_its_secret(
    tmp_path: Path, file: str, more: str, said: str
) -> None:
    with pytest.raises(StratumError, match=said) as fault:
        load(tmp_path, EVENTS_AT.replace("FILE", file).replace("MORE", more))
    assert "hidden-word" not in str(fault.value)


def test_orders_are_not_read_from_a_store(tmp_path: Path) -> None:
    names = ("order_id", "customer_id", "product_id", "quantity", "unit_price", "currency", "ordered_at")
    columns = ", ".join(f"{name}: a" for name in names)
    with pytest.raises(StratumError, match="object stores are read for events alone, from s3://, gs://"):
        load(tmp_path, f"company: {{name: x}}\norders: {{file: 's3://box/1.csv', columns: {{{columns}}}}}")
