"""The pages of the gates: every result, for a browser without network, and no secret in any file."""

import re
from datetime import date
from pathlib import Path

import pytest
from great_expectations.core import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

from include.quality.docs import PageView, ResultPage
from include.quality.gate import GateFailed, run_gate
from include.settings import get_settings
from include.warehouse.lock import begin_run
from tests.conftest import PASSWORDS, Warehouse
from tests.fixtures.candidates import make_candidate
from tests.fixtures.layers import load_day

DAY = date(2026, 6, 30)


@pytest.fixture
def run_id(warehouse: Warehouse) -> str:
    """A run as of DAY that holds the build lock."""
    return begin_run(DAY)


def test_the_data_docs_show_every_result_without_network_or_script(warehouse: Warehouse, run_id: str) -> None:
    load_day(DAY)
    make_candidate(run_id, DAY)
    run_gate("raw", DAY, run_id)
    warehouse.rows("update candidate.tier_summary set accounts = 4 where tier = 'S'")
    with pytest.raises(GateFailed):
        run_gate("published", DAY, run_id)
    docs = get_settings().data_docs
    index = (docs / "index.html").read_text()
    links = re.findall(r'<a href="([^"]+)">', index)
    assert len(links) == 12  # 2 raw tables, 10 of the candidate
    assert index.count(">passed<") == 10
    assert index.count(">FAILED<") == 2
    for link in links:
        assert (docs / link).is_file()
    page = (docs / next(link for link in links if "tier_summary" in link)).read_text()
    assert "Each tier counts the accounts that customer_360 gives it." in page
    for html in (index, page):
        assert not re.search(r"<script|<(link|img)[^>]+https?://|url\(.?https?://", html)


@pytest.mark.parametrize(
    ("severities", "told"),
    [
        ([], "Succeeded"),
        (["warning"], "Warned: a warning stops nothing"),
        (["warning", "critical"], "Failed"),
    ],
)
def test_the_page_of_a_result_says_what_the_index_says_of_it(severities: list[str], told: str) -> None:
    results = [
        ExpectationValidationResult(
            success=False,
            expectation_config=ExpectationConfiguration(
                type="expect_table_row_count_to_be_between", kwargs={"min_value": 1}, severity=severity
            ),
        )
        for severity in severities
    ]
    result = ExpectationSuiteValidationResult(
        success=not severities, results=results, suite_name="raw.orders", meta={}
    )
    page = PageView().render(ResultPage().render(result))
    status = re.search(r"Status:.*?</i>(.*?)<", page, re.DOTALL)
    assert status
    assert re.sub(r"\s+", " ", status[1]).strip() == told


def test_the_site_holds_the_newest_runs_only(
    warehouse: Warehouse, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.quality.docs.RUNS_SHOWN", 2)
    load_day(DAY)
    runs = [run_id]
    run_gate("raw", DAY, run_id)
    for _ in range(3):
        runs.append(begin_run(DAY))
        run_gate("raw", DAY, runs[-1])
    docs = get_settings().data_docs
    pages = {path.parent.parent.name for path in (docs / "validations").rglob("*.html")}
    assert pages == set(runs[-2:])
    assert runs[0] not in (docs / "index.html").read_text()
    assert warehouse.value("select count(distinct run_id) from audit.checks") == 4


def test_no_file_of_a_gate_holds_a_password(warehouse: Warehouse, run_id: str, tmp_path: Path) -> None:
    load_day(DAY)
    make_candidate(run_id, DAY)
    run_gate("raw", DAY, run_id)
    run_gate("published", DAY, run_id)
    files = [path for path in get_settings().home.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        for password in PASSWORDS.values():
            assert password.encode() not in path.read_bytes(), path
