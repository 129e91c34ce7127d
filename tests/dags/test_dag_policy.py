"""Rules every DAG keeps. They run over the DAGs as Airflow parses them, and fail on an empty folder."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from include.settings import PROJECT_DIR

DAGS = PROJECT_DIR / "dags"
EXPECTED = {
    "ingest_orders",
    "ingest_crm",
    "ingest_behavior",
    "build_marts",
    "train_models",
    "score_accounts",
    "publish",
    "sync_crm",
    "reconcile_crm",
    "housekeeping",
}
ALLOWED_TAGS = {"ingest", "build", "models", "publish", "sync", "housekeeping"}
MAX_LINES = 120
MAX_IMPORT_S = 3.0
MODULES = sorted(DAGS.glob("*.py"))


@pytest.fixture(scope="module")
def dagbag():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(DAGS), safe_mode=False)
    assert not bag.import_errors
    return bag


def dags(dagbag):
    assert len(dagbag.dags) > 0, "an empty DagBag proves nothing"
    return dagbag.dags.values()


def test_the_dags_are_those_of_the_chain(dagbag):
    assert set(dagbag.dags) == EXPECTED == {path.stem for path in MODULES}


def test_every_dag_has_an_owner_tags_and_a_doc(dagbag):
    for dag in dags(dagbag):
        assert dag.owner == "data-engineering", dag.dag_id
        assert dag.tags, dag.dag_id
        assert set(dag.tags) <= ALLOWED_TAGS, dag.dag_id
        assert dag.doc_md, dag.dag_id
        assert "When it fails: docs/runbooks/" in dag.doc_md, dag.dag_id


def test_the_runbook_a_doc_names_exists(dagbag):
    for dag in dags(dagbag):
        named = dag.doc_md.split("When it fails: ")[1].split()[0].rstrip(".")
        assert (PROJECT_DIR / named).is_file(), f"{dag.dag_id} names {named}"


def test_every_task_retries_ends_and_one_run_goes_at_a_time(dagbag):
    for dag in dags(dagbag):
        # A sync that waits for an answer must not keep the next date's from running.
        assert dag.max_active_runs == (16 if dag.dag_id == "sync_crm" else 1), dag.dag_id
        assert not dag.catchup, dag.dag_id
        for task in dag.tasks:
            assert task.retries >= 1, task
            assert task.execution_timeout is not None, task


def test_only_announce_holds_an_ingests_outlet_and_in_the_pool_of_one(dagbag):
    for dag in dags(dagbag):
        if "ingest" not in dag.tags:
            continue
        holders = [task for task in dag.tasks if task.outlets]
        assert [task.task_id for task in holders] == ["announce"], dag.dag_id
        assert holders[0].pool == "announce", dag.dag_id


def test_every_dbt_task_shares_the_writers_pool(dagbag):
    pools = {task.task_id: task.pool for dag in dags(dagbag) for task in dag.tasks}
    builders = {name for name in pools if name.startswith("build_")}
    assert builders == {"build_staging", "build_marts", "build_candidate"}
    assert {pools[name] for name in builders} == {"warehouse_writer"}


def test_a_failed_build_score_or_publish_gives_the_lock_back(dagbag):
    for dag_id in ("build_marts", "score_accounts", "publish"):
        for task in dagbag.dags[dag_id].tasks:
            assert task.on_failure_callback, task


def test_a_failed_training_fails_its_run_and_lets_the_accounts_be_scored(dagbag):
    dag = dagbag.dags["train_models"]
    announce, trained = dag.get_task("announce"), dag.get_task("trained")
    assert announce.trigger_rule == "all_done"
    assert [asset.name for asset in announce.outlets] == ["models"]
    assert trained.trigger_rule == "all_success"
    assert announce.upstream_task_ids == trained.upstream_task_ids == {"train"}


def test_each_target_is_told_by_a_task_of_its_own_which_waits_where_it_is_held(dagbag):
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    from include.sync.operator import TellTarget

    sync = dagbag.dags["sync_crm"].get_task("sync")
    assert sync.is_mapped
    assert sync.operator_class is TellTarget
    assert sync.max_active_tis_per_dag is None, (
        "Airflow counts a task that waits, and the others would not run"
    )
    assert sync.max_active_tis_per_dagrun is None
    one = sync.unmap({"target": "crm"})
    assert isinstance(one, ApprovalOperator)
    assert one.defaults is None, "an answer that nobody gave would read as one"
    assert one.execution_timeout is not None, "the work has a timeout beside that of the wait"


def test_each_target_is_read_back_by_a_task_of_its_own_after_it_is_known_which(dagbag):
    reconcile = dagbag.dags["reconcile_crm"].get_task("reconcile")
    assert reconcile.is_mapped
    assert reconcile.upstream_task_ids == {"targets"}


@pytest.mark.parametrize(
    ("dag_id", "task_id", "mapped"),
    [
        ("sync_crm", "sync", {"target": "crm"}),
        ("reconcile_crm", "reconcile", {"op_kwargs": {"target": "crm"}}),
    ],
)
def test_the_task_of_a_target_bears_its_name_on_the_screen(dagbag, dag_id: str, task_id: str, mapped: dict):
    task = dagbag.dags[dag_id].get_task(task_id)
    shown = dagbag.dags[dag_id].get_template_env().from_string(task.map_index_template)
    assert shown.render(task=task.unmap(mapped)) == "crm"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_dag_file_is_short_wiring(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert not path.name.startswith("dbt_"), "dbt imports such files"
    loops = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.For | ast.While | ast.Try)]
    assert not loops, "a DAG file holds no logic"


def test_the_dags_import_quickly():
    program = (
        "import time, pathlib, runpy, airflow.sdk; t = time.perf_counter();"
        f"[runpy.run_path(str(p)) for p in pathlib.Path({str(DAGS)!r}).glob('*.py')];"
        "print(time.perf_counter() - t)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert float(done.stdout.split()[-1]) < MAX_IMPORT_S, f"{time.perf_counter() - started:.1f} s in all"
