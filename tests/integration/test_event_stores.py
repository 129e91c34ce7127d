"""Event files in an object store land like those of a folder, whole or not at all, and no message holds a secret."""

import gzip
import json
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from include.cli import app
from include.errors import StratumError, TransientError
from include.settings import get_settings
from include.sources import event_files, stores
from include.sources.behavior import ingest_behavior
from include.sources.config import Sources
from include.sources.loads import Load
from include.sources.replay_events import replay_events
from include.sources.row_sources import Behavior, Company
from tests.conftest import Warehouse
from tests.fixtures.books import counts
from tests.fixtures.object_store import SECRET, Faulty, Store, running_store

pytestmark = pytest.mark.extended

HEADER = "id,who,what,placed\n"
DAY = date(2024, 3, 3)
COMPANY = Company(name="Test company", timezone="Asia/Shanghai", currency="CNY")
HELD = (
    "select event_id, customer_id, event_name, to_char(event_at at time zone 'Asia/Shanghai', 'DD HH24:MI') "
    "from raw_files.events where (file_id, source_row) not in "
    "(select file_id, source_row from raw_files.superseded_events) order by event_at, event_id"
)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Faulty]]:
    with running_store() as running:
        yield running


@pytest.fixture
def store(server: tuple[str, Faulty], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    monkeypatch.setattr(stores, "PAUSES_S", (0, 0))
    monkeypatch.setenv("STRATUM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    found = Store(*server, monkeypatch)
    yield found
    found.ask_for_logins(False)
    found.faulty.faults.clear()
    assert os.listdir(tmp_path / "home" / "tmp") in ([], ["duckdb"]) if (tmp_path / "home").exists() else True
    get_settings.cache_clear()


def sources(store: Store, pattern: str = "events/**/*.csv", ids: bool = True) -> Sources:
    columns = {"customer_id": "who", "event_name": "what", "event_at": "placed"}
    given = {"file": f"s3://{store.bucket}/{pattern}", "connection": "store"}
    columns |= {"event_id": "id"} if ids else {}
    return Sources(company=COMPANY, behavior=Behavior.model_validate(given | {"columns": columns}))


def lines(*events: str) -> str:
    return HEADER + "".join(f"{event}\n" for event in events)


def opened(load: Load | None) -> list[str]:
    assert load is not None
    return [path.rpartition("/")[2] for path in load.files]


def test_new_and_changed_objects_alone_are_read_and_what_a_changed_one_held_gives_way(
    warehouse: Warehouse, store: Store
) -> None:
    store.put("events/2024/1.csv", lines("1,A,login,2024-03-01 09:00", "2,B,login,2024-03-01 10:00"))
    store.put("events/2.csv", lines("3,A,page,2024-03-02 09:00"))
    store.put("other/3.csv", lines("9,X,page,2024-03-02 09:00"))
    load = ingest_behavior(sources(store), DAY)
    assert counts(load) == (3, 3, 0, 0, 0, 0, 0)
    assert load is not None
    assert load.files == [f"s3://{store.bucket}/events/2.csv", f"s3://{store.bucket}/events/2024/1.csv"]
    store.faulty.read.clear()
    assert counts(ingest_behavior(sources(store), DAY)) == (0, 0, 0, 0, 0, 0, 0)
    # The same content put there again has the same tag; another has not.
    store.put("events/2.csv", lines("3,A,page,2024-03-02 09:00"))
    assert opened(ingest_behavior(sources(store), DAY)) == []
    assert store.faulty.read == []
    store.put(
        "events/2024/1.csv",
        lines("1,A,login,2024-03-01 09:00", "4,C,login,2024-03-01 09:30", "2,D,login,2024-03-01 10:00"),
    )
    store.delete("events/2.csv")  # what is closed may be moved away
    store.put("events/2025/1.csv", lines("5,A,page,2024-03-03 09:00"))
    load = ingest_behavior(sources(store), DAY)
    assert opened(load) == ["1.csv", "1.csv"]
    assert counts(load) == (4, 2, 1, 1, 0, 0, 0)
    assert warehouse.rows(HELD) == [
        ("1", "A", "login", "01 09:00"),
        ("4", "C", "login", "01 09:30"),
        ("2", "D", "login", "01 10:00"),
        ("3", "A", "page", "02 09:00"),
        ("5", "A", "page", "03 09:00"),
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz"])
def test_each_kind_of_object_lands(warehouse: Warehouse, store: Store, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"1.{kind}"
    text = lines("1,A,login,2024-03-01 09:00:00", "2,,page,2024-03-01 10:00:00")
    (tmp_path / "1.csv").write_text(text)
    form = "parquet" if kind == "parquet" else "json"
    duckdb.execute(
        f"copy (from read_csv('{tmp_path}/1.csv', all_varchar = true)) to '{path}' (format {form})"
    )
    store.put(f"events/1.{kind}", path.read_bytes())
    assert counts(ingest_behavior(sources(store, f"events/*.{kind}"), DAY)) == (2, 2, 0, 0, 0, 1, 0)


def test_a_connection_that_is_lost_on_the_way_is_taken_up_again(warehouse: Warehouse, store: Store) -> None:
    rows = [f"{n},A,page,2024-03-01 09:00:{n % 60:02}" for n in range(3000)]
    store.put("events/1.csv", lines(*rows))
    store.faulty.faults += ["busy", "cut", "cut"]
    assert counts(ingest_behavior(sources(store), DAY)) == (3000, 3000, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("what", ["cut off for good", "changed", "gone"])
def test_an_object_that_cannot_be_had_whole_as_it_was_listed_is_no_load(
    warehouse: Warehouse, store: Store, what: str
) -> None:
    store.put("events/1.csv", lines("1,A,login,2024-03-01 09:00"))
    store.put("events/2.csv", lines(*(f"{n},A,page,2024-03-02 09:00" for n in range(2, 500))))
    change = {
        "changed": lambda: store.put("events/2.csv", lines("2,B,page,2024-03-02 09:00")),
        "gone": lambda: store.delete("events/2.csv"),
    }
    store.faulty.faults += [lambda: None, *(["cut"] * 99 if what not in change else [change[what]])]
    said = {"changed": "has changed since", "gone": "is gone since"}.get(what, "lost or cut off")
    with pytest.raises(TransientError, match=f"s3://{store.bucket}/events/2.csv.* {said}|{said}") as fault:
        ingest_behavior(sources(store), DAY)
    assert "\n" not in str(fault.value)
    assert warehouse.value("select count(*) from audit.loads") == 0
    assert warehouse.value("select count(*) from raw_files.events") == 0
    store.faulty.faults.clear()
    load = ingest_behavior(sources(store), DAY)
    assert load is not None
    assert load.rows_new == {"changed": 2, "gone": 1}.get(what, 499)


def test_what_the_store_does_not_give_is_told_in_one_line_without_a_secret(
    module_warehouse: Warehouse, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("events/1.csv", lines("1,A,login,2024-03-01 09:00"))

    def told(given: Sources) -> str:
        with pytest.raises(StratumError) as fault:
            ingest_behavior(given, DAY)
        assert "\n" not in str(fault.value)
        assert SECRET not in str(fault.value)
        assert fault.value.__cause__ is None  # its text may hold what the vendor's library knows
        return f"{type(fault.value).__name__}: {fault.value}"

    assert "There is no object s3://" in told(sources(store, "none/*.csv"))
    elsewhere = Behavior.model_validate(
        sources(store).behavior.model_dump() | {"file": "s3://nowhere-at-all/events/*.csv"}  # type: ignore[union-attr]
    )
    assert "There is no s3://nowhere-at-all/" in told(Sources(company=COMPANY, behavior=elsewhere))
    store.connect(endpoint_url="http://127.0.0.1:9")
    monkeypatch.setattr("include.sources.store_options.ATTEMPTS", 1)
    assert told(sources(store)).startswith("TransientError: The connection to the store")
    store.connect(*store.reader(["s3:ListBucket"]))
    assert "does not let Stratum read s3://" in told(sources(store))
    store.connect("nobody")
    assert "does not let Stratum read s3://" in told(sources(store))
    store.ask_for_logins(False)
    monkeypatch.delenv("AIRFLOW_CONN_STORE")
    assert "No connection 'store'" in told(sources(store))
    assert module_warehouse.value("select count(*) from audit.loads") == 0


def test_one_who_may_list_and_read_loads(warehouse: Warehouse, store: Store) -> None:
    store.put("events/1.csv", lines("1,A,login,2024-03-01 09:00"))
    store.connect(*store.reader(["s3:ListBucket", "s3:GetObject"]))
    assert counts(ingest_behavior(sources(store), DAY)) == (1, 1, 0, 0, 0, 0, 0)


def test_without_a_connection_the_vendor_s_own_variables_lead_in(
    warehouse: Warehouse, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("events/1.csv", lines("1,A,login,2024-03-01 09:00"))
    login, password = store.reader(["s3:ListBucket", "s3:GetObject"])
    for name, value in {
        "AWS_ACCESS_KEY_ID": login, "AWS_SECRET_ACCESS_KEY": password, "AWS_ENDPOINT_URL": store.url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AIRFLOW_CONN_STORE")
    given = sources(store)
    assert given.behavior is not None
    given = given.model_copy(update={"behavior": given.behavior.model_copy(update={"connection": None})})
    assert counts(ingest_behavior(given, DAY)) == (1, 1, 0, 0, 0, 0, 0)


def test_a_corrupt_object_is_refused_alone_by_its_url_and_a_replay_finds_it(
    warehouse: Warehouse, store: Store
) -> None:
    store.put("events/1.csv.gz", gzip.compress(lines("1,A,login,2024-03-01 09:00").encode()))
    store.put("events/2.csv.gz", b"this is no gzip")
    store.put(
        "events/3.csv.gz", gzip.compress(lines("3,A,,2024-03-01 09:00", "4,A,x,2024-03-01 09:00").encode())
    )
    given = sources(store, "events/*.csv.gz")
    assert counts(ingest_behavior(given, DAY)) == (4, 2, 0, 0, 2, 0, 0)
    found = warehouse.rows("select source_file, reason, original ->> 'fault' from quarantine.rows order by 1")
    assert [row[:2] for row in found] == [("2.csv.gz", "unreadable_file"), ("3.csv.gz", "missing_event_name")]
    assert found[0][2].startswith(f"s3://{store.bucket}/events/2.csv.gz cannot be read")
    assert given.behavior is not None
    columns = given.behavior.columns.model_copy(update={"event_name": "coalesce(what, 'unnamed')"})
    given = given.model_copy(update={"behavior": given.behavior.model_copy(update={"columns": columns})})
    outcome = replay_events(given, DAY, "missing_event_name")
    assert (outcome.rows, outcome.settled, outcome.gone) == (1, 1, 0)


def test_objects_are_copied_a_few_at_a_time_and_land_as_if_they_had_come_together(
    warehouse: Warehouse, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Each file repeats an event of the one before, and has other events of the same ids: within a load all are events.
    for n in range(1, 5):
        store.put(
            f"events/{n}.csv",
            lines(
                f"{n},A,page,2024-03-01 09:0{n}",
                f"{n - 1},A,page,2024-03-01 09:0{n - 1}",
                f"{n - 1},B,page,2024-03-01 09:0{n}",
                f"x,C,page,2024-03-01 10:0{n}",
                f"{n},A,,2024-03-01",
            ),
        )
    held, load_counts, copied = [], [], []
    bring = stores.ObjectStore.bring

    def watched(
        self: stores.ObjectStore, file: event_files.ListedFile, folder: Path, number: int
    ) -> event_files.ListedFile:
        done = bring(self, file, folder, number)
        copied.append(len(os.listdir(folder)))
        return done

    monkeypatch.setattr(stores.ObjectStore, "bring", watched)
    for size in (10**9, 200):
        monkeypatch.setattr(event_files, "BATCH_BYTES", size)
        copied.clear()
        load = ingest_behavior(sources(store), DAY)
        held.append(warehouse.rows(HELD))
        assert load is not None
        load_counts.append((load.rows_in, load.rows_new, load.rows_corrected, load.rows_quarantined))
        assert max(copied) == (4 if size > 200 else 1)
        warehouse.rows(
            "truncate raw_files.events, raw_files.event_files, raw_files.event_file_days, raw_files.superseded_events, "
            "intermediate.usage_day_queue, quarantine.rows; truncate audit.loads cascade"
        )
    assert held[0] == held[1]
    assert len(held[0]) == 13
    # What a batch holds already is unchanged, where one batch refuses it as repeated.
    assert load_counts == [(20, 13, 0, 7), (20, 13, 0, 4)]


def test_check_says_what_a_store_has(store: Store, tmp_path: Path) -> None:
    store.put("events/1.csv", lines("1,A,login,2024-03-01 09:00"))
    store.put("events/2.csv", lines("2,A,login,2024-03-01 22:00", "3,A,login,2024-03-01 23:00"))
    path = tmp_path / "sources.yml"

    def check(pattern: str) -> tuple[int, dict]:
        path.write_text(
            "company: {name: Test company, timezone: Asia/Shanghai, currency: CNY}\n"
            f"behavior: {{file: 's3://{store.bucket}/{pattern}', connection: store, timezone: UTC, "
            "columns: {event_name: what, event_at: placed}}"
        )
        done = CliRunner().invoke(app, ["sources", "check", "--json", "--sources", str(path)])
        return done.exit_code, json.loads(done.stdout)[0]

    code, seen = check("events/*.csv")
    assert (code, seen["rows"], seen["newest"], seen["not_mapped"]) == (
        0,
        2,
        "2024-03-02 07:00:00",
        ["id", "who"],
    )
    assert seen["note"].startswith("2 objects of 119 bytes; rows and columns are those of s3://")
    code, seen = check("none/*.csv")
    assert (code, seen["is_reachable"]) == (1, False)
    assert "There is no object" in seen["fault"]


def test_a_copy_that_is_shorter_than_the_object_is_made_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("events/1.csv", lines("1,A,login,2024-03-01 09:00"))
    behavior = sources(store).behavior
    assert behavior is not None
    found = stores.ObjectStore(behavior, sleep=lambda seconds: None)
    (file,) = found.files()
    whole, copies = found._system.get_file, []

    def short(name: str, path: str) -> None:
        whole(name, path)
        copies.append(path)
        if len(copies) <= cut:
            Path(path).write_bytes(Path(path).read_bytes()[:20])

    monkeypatch.setattr(found._system, "get_file", short)
    cut = 2
    assert found.bring(file, tmp_path, 1).readable.stat().st_size == file.size
    cut = 9
    with pytest.raises(TransientError, match="was lost or cut off"):
        found.bring(file, tmp_path, 1)
    assert len(copies) == 6
