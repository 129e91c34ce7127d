"""Acquisition, satisfaction, flows and contracts: equal to what plain Python counts from the raw rows, on every date."""

from collections import Counter
from datetime import date, timedelta

import pytest

from include.dbt import build, invoke
from include.errors import StratumError
from tests.conftest import Warehouse
from tests.dbt import plain_experiments
from tests.dbt import plain_growth as plain
from tests.dbt.raw_rows import Event, Events, Orders, at
from tests.fixtures.growth_company import END, STEPS, Company, land, make_company

DATES = [*plain.month_ends(date(2025, 1, 1), END), END]


class Built:
    """The company's rows, its event source, and the warehouse they were built in."""

    def __init__(self, warehouse: Warehouse, company: Company, events: Events) -> None:
        self.warehouse, self.company, self.events = warehouse, company, events
        self.kpis = {
            (as_of, kpi, value): (None if figure is None else float(figure), reason)
            for as_of, kpi, value, figure, reason in warehouse.rows(
                "select as_of_date, kpi, dimension || ' ' || dimension_value, value, no_value_reason from marts.kpis"
            )
        }

    def kpi(self, as_of: date, kpi: str, of: str = "company all") -> float | None:
        """Return a KPI; where it has none it must say why, and only there."""
        value, reason = self.kpis[as_of, kpi, of]
        assert (value is None) == (reason is not None), (as_of, kpi, of)
        return value


@pytest.fixture(scope="module")
def built(module_warehouse: Warehouse) -> Built:
    company, events = make_company(), Events()
    land(company, Orders(), events)
    for layer in ("staging", "marts"):
        build(layer, END, "run-growth")
    return Built(module_warehouse, company, events)


def _some(figures: list[float | None]) -> list[float | None]:
    """Check that the figures to be compared are more than blanks, zeros and ones; return them."""
    assert len({figure for figure in figures if figure not in (None, 0, 1)}) >= 2, figures
    return figures


def test_conversions_equal_the_plain_count_on_every_date(built: Built) -> None:
    for as_of in DATES:
        expected = plain.conversions(built.company, as_of)
        found = {
            (kind, account): (start, reached, outcome)
            for kind, account, start, reached, outcome in built.warehouse.rows(
                "select conversion, account_id, start_date, reached_date, is_converted "
                "from marts.account_conversions where as_of_date = %s",
                as_of,
            )
        }
        assert found == expected, as_of
    assert {outcome for _, _, outcome in expected.values()} == {0, 1, None}
    assert {kind for kind, _ in expected} == {"lead_to_trial", "trial_to_paying", "referral_to_paying"}


@pytest.mark.parametrize(
    ("kpi", "kind"),
    [
        ("lead_to_trial_rate", "lead_to_trial"),
        ("trial_to_paying_rate", "trial_to_paying"),
        ("referral_conversion_rate", "referral_to_paying"),
    ],
)
def test_conversion_rates_are_those_of_the_newest_month_whose_windows_are_over(
    built: Built, kpi: str, kind: str
) -> None:
    expected = _some([plain.conversion_rate(built.company, as_of, kind) for as_of in DATES])
    assert [built.kpi(as_of, kpi) for as_of in DATES] == pytest.approx(expected, abs=1e-6)
    assert expected[0] is None


def test_a_cohort_whose_window_is_not_over_has_no_rate_and_says_so(built: Built) -> None:
    rows = built.warehouse.rows(
        "select month, leads, lead_to_trial_rate, lead_to_trial_rate_reason, roi, roi_reason "
        "from marts.acquisition_months where as_of_date = %s and channel = 'all' and month >= '2025-01-01' order by 1",
        END,
    )
    over = plain.cohort_month(END, plain.CONVERSION)
    assert over == date(2025, 5, 1)
    for month, leads, lead_rate, reason, roi, roi_reason in rows:
        assert (roi is None, roi_reason is None) == (month > over, month <= over)
        if leads:
            assert (lead_rate is None, reason) == (
                month > over, "the window of the last ones is not over" if month > over else None
            )  # fmt: skip
    assert {month > over for month, leads, *_ in rows if leads} == {True, False}


def test_cost_and_return_by_channel_equal_the_plain_sums(built: Built) -> None:
    compared = untold = 0
    for as_of in DATES:
        new, spend, _ = plain.acquisition(built.company, as_of, plain.month_of(as_of))
        roi_month = plain.cohort_month(as_of, plain.ROI - 1)
        _, roi_spend, revenue = plain.acquisition(built.company, as_of, roi_month)
        is_over = as_of != END
        told = {
            plain.channel(built.company, account, as_of)
            for account in plain.first_orders(built.company, as_of)
        }
        for channel in {*new, *spend}:
            cac = spend[channel] / new[channel] if channel in spend and new[channel] else None
            assert built.kpi(as_of, "cac", f"channel {channel}") == pytest.approx(
                cac if is_over else None, abs=1e-4
            )
            # What was spent on a channel that nobody is told to have come by is not lost for that.
            is_told = channel in told and channel in roi_spend
            roi = (revenue[channel] - roi_spend[channel]) / roi_spend[channel] if is_told else None
            assert built.kpi(as_of, "channel_roi", f"channel {channel}") == pytest.approx(roi, abs=1e-4)
            compared += cac is not None and roi is not None
        total = sum(spend.values()) / new.total() if new and spend else None
        assert built.kpi(as_of, "cac") == pytest.approx(total if is_over else None, abs=1e-4)
        assert built.kpi(as_of, "incentive_roi") is None
        # A kind's cost is told where the kind of every new account is: that of those channels that were spent on.
        if is_over and any(new[channel] for channel in new.keys() - spend.keys()):
            kinds = {of: row for (day, kpi, of), row in built.kpis.items() if (day, kpi) == (as_of, "cac")}
            for kind in ("online", "offline"):
                value, reason = kinds[f"channel_kind {kind}"]
                assert value is None
                assert "no source tells to be online or offline" in reason
            untold += 1
    assert compared > 5
    assert untold > 0
    # The sources tell of it in four spellings.
    search = [built.kpi(as_of, "cac", "channel paid_search") for as_of in DATES]
    assert sum(cac is not None for cac in search) > 5
    channels = {of for _, kpi, of in built.kpis if kpi == "cac" and of.startswith("channel ")}
    assert channels <= {"channel paid_search", "channel fair", "channel partner", "channel not told"}


def test_nps_csat_resolution_and_follow_up_equal_the_plain_count(built: Built) -> None:
    expected = {
        "company_nps": [plain.nps(built.company, as_of)[0] for as_of in DATES],
        "account_nps": [plain.nps(built.company, as_of)[1] for as_of in DATES],
        "csat": [plain.csat(built.company, as_of)[0] for as_of in DATES],
        "csat_mean": [plain.csat(built.company, as_of)[1] for as_of in DATES],
        "detractors_followed_up": [plain.followed_up(built.company, as_of) for as_of in DATES],
        "ticket_resolution_rate": [plain.tickets(built.company, as_of)[0] for as_of in DATES],
        "ticket_resolution_hours_mean": [plain.tickets(built.company, as_of)[1] for as_of in DATES],
        "ticket_resolution_hours_median": [plain.tickets(built.company, as_of)[2] for as_of in DATES],
    }
    for kpi, figures in expected.items():
        assert [built.kpi(as_of, kpi) for as_of in DATES] == pytest.approx(_some(figures), abs=1e-3), kpi
    assert expected["company_nps"] != expected["account_nps"]


def test_renewal_and_signing_equal_the_plain_count(built: Built) -> None:
    expected = {
        "contract_renewal_rate": [plain.renewal_rate(built.company, as_of) for as_of in DATES],
        "contract_signed_rate": [plain.signing(built.company, as_of)[0] for as_of in DATES],
        "contract_signing_hours_mean": [plain.signing(built.company, as_of)[1] for as_of in DATES],
        "contract_signing_hours_median": [plain.signing(built.company, as_of)[2] for as_of in DATES],
    }
    for kpi, figures in expected.items():
        assert [built.kpi(as_of, kpi) for as_of in DATES] == pytest.approx(_some(figures), abs=1e-3), kpi


def test_a_contract_signed_on_the_windows_last_day_counts_and_a_minute_later_does_not(built: Built) -> None:
    rows = built.warehouse.rows(
        "select contract_id, hours_to_sign is not null from marts.contract_outcomes "
        "where as_of_date = '2025-05-31' and contract_id in ('edge-a', 'edge-b') order by 1"
    )
    assert rows == [("edge-a", True), ("edge-b", False)]


def test_shares_of_referred_accounts_equal_the_plain_count(built: Built) -> None:
    expected = []
    for as_of in DATES:
        buys = plain.first_orders(built.company, as_of)
        new = {account: day for account, day in buys.items() if plain.month_of(day) == plain.month_of(as_of)}
        referred = {
            each.referred.account_id
            for each in built.company.referrals
            if plain.day_of(each.on) <= new.get(each.referred.account_id, date.min)
        }
        expected.append(len(referred) / len(new) if new else None)
        # Loyal are fewer, and of those whom the relationship of the month's end before calls so.
        loyal = built.kpi(as_of, "loyal_referred_share_of_new_accounts")
        assert loyal is None or loyal <= (expected[-1] or 0) + 1e-6
    found = [built.kpi(as_of, "referred_share_of_new_accounts") for as_of in DATES]
    assert found == pytest.approx(_some(expected), abs=1e-6)


def test_a_referrer_is_loyal_by_the_end_of_the_month_before(built: Built) -> None:
    loyal = set(
        built.warehouse.rows(
            "select as_of_date, account_id from marts.account_relationships where relationship_stage = 'loyal'"
        )
    )
    buys = plain.first_orders(built.company, END)
    first = {}
    for each in sorted(
        built.company.referrals, key=lambda referral: (plain.day_of(referral.on), referral.record_id)
    ):
        if plain.day_of(each.on) <= buys.get(each.referred.account_id, date.min):
            first.setdefault(each.referred.account_id, each)
    expected = {
        account: (
            each.referrer.account_id,
            int(
                (plain.month_of(plain.day_of(each.on)) - timedelta(days=1), each.referrer.account_id) in loyal
            ),
        )
        for account, each in first.items()
    }
    found = {
        account: (referrer, is_loyal)
        for account, referrer, is_loyal in built.warehouse.rows(
            "select account_id, referrer_account_id, is_referred_by_loyal from marts.account_acquisitions "
            "where as_of_date = %s and is_referred = 1",
            END,
        )
    }
    assert found == expected
    assert {is_loyal for _, is_loyal in expected.values()} == {0, 1}


def test_flow_steps_and_paths_equal_the_plain_count_by_month(built: Built) -> None:
    for as_of in DATES:
        sessions = [
            each
            for each in plain.sessions(built.company, as_of)
            if plain.month_of(each[0]) == plain.month_of(as_of)
        ]
        reached = [sum(furthest >= step for _, _, furthest, _ in sessions) for step in range(len(STEPS))]
        rows = built.warehouse.rows(
            "select sessions_reached, sessions_lost, is_drop_off_stage from marts.purchase_flow "
            "where as_of_date = %s and tier = 'all' order by position",
            as_of,
        )
        assert [row[0] for row in rows] == reached, as_of
        lost = [reached[step] - reached[step + 1] for step in range(len(STEPS) - 1)]
        assert [row[1] for row in rows] == [*lost, 0]
        assert [row[2] for row in rows].index(True) == lost.index(max(lost))
        assert built.kpi(as_of, "purchase_flow_completion_rate") == pytest.approx(
            reached[3] / reached[0], abs=1e-6
        )
        for outcome, is_done in {"purchase": True, "abandonment": False}.items():
            paths = Counter(path for _, _, furthest, path in sessions if (furthest == 3) == is_done)
            expected = sorted(paths.items(), key=lambda item: (-item[1], item[0]))[:10]
            found = built.warehouse.rows(
                "select path, sessions from marts.purchase_paths "
                "where as_of_date = %s and tier = 'all' and outcome = %s order by place",
                as_of,
                outcome,
            )
            assert found == expected


def test_a_session_over_midnight_is_one_and_belongs_to_the_day_it_began(built: Built) -> None:
    rows = built.warehouse.rows(
        "select as_of_date, session_date, is_completed, path from marts.purchase_sessions "
        "where account_id = 'c-edge' order by 1, 2"
    )
    # At the month's end the rest of the night was not known.
    assert (date(2025, 5, 31), date(2025, 5, 31), 0, "search > compare") in rows
    assert [row for row in rows if row[0] == date(2025, 6, 30)] == [
        (date(2025, 6, 30), date(2025, 6, 10), 0, "search"),
        (date(2025, 6, 30), date(2025, 6, 11), 0, "cart"),
    ]


@pytest.mark.parametrize("metric", plain_experiments.WINDOWS)
def test_experiments_are_read_out_as_scipy_and_numpy_do(built: Built, metric: str) -> None:
    for as_of in (date(2025, 4, 30), date(2025, 6, 30), END):
        expected = plain_experiments.readout(built.company, as_of, metric)
        rows = built.warehouse.rows(
            "select variant, units, conversions, tries, units_pending, difference_from, difference_to, "
            "split_chi_square, is_split_as_expected from marts.experiment_readouts "
            "where as_of_date = %s and experiment = 'page' and metric = %s and tier = 'all' order by variant",
            as_of,
            metric,
        )
        assert {row[0]: row[1:4] for row in rows if row[1]} == expected
        assert sum(row[1] + row[4] for row in rows) == len(plain_experiments.units(built.company, as_of))
        assert float(rows[0][7]) == pytest.approx(plain_experiments.split(built.company, as_of), abs=1e-3)
        assert rows[0][8] == (float(rows[0][7]) <= 6.635)
        if expected:
            found = [float(end) for end in rows[1][5:7]]
            assert found == pytest.approx(plain_experiments.interval(built.company, as_of, metric), abs=1e-4)
            assert found[0] < found[1]
    assert expected
    assert rows[0][5] is None  # of the control


def test_an_account_that_saw_two_variants_is_in_no_read_out(built: Built) -> None:
    rows = built.warehouse.rows(
        "select distinct as_of_date >= '2025-04-02', is_crossed from marts.experiment_units "
        "where experiment = 'page' and account_id = 'c-edge' order by 1"
    )
    assert rows == [(False, 0), (True, 1)]


def test_what_happened_on_the_day_of_the_assignment_or_before_is_no_outcome(built: Built) -> None:
    assigned = date(2025, 3, 31)
    accounts = built.warehouse.rows(
        "select account_id, conversions from marts.experiment_units "
        "where as_of_date = %s and experiment = 'page' and metric = 'orders in 90 days' and is_crossed = 0",
        END,
    )
    on_the_day = {customer for customer, day, _ in built.company.orders if day <= assigned}
    assert on_the_day & {account for account, _ in accounts}
    for account, orders in accounts:
        days = [day for customer, day, _ in built.company.orders if customer == account]
        assert orders == sum(assigned < day <= assigned + timedelta(days=90) for day in days)


def test_the_hold_out_group_is_drawn_by_the_hash_of_its_accounts_and_stands(built: Built) -> None:
    rows = built.warehouse.rows(
        "select as_of_date, account_id, is_held_out, since from marts.account_holdouts"
    )
    assert {row[0] for row in rows} == set(DATES)
    assert all(held_out == plain_experiments.is_held_out(account) for _, account, held_out, _ in rows)
    assert {(held_out, since) for _, _, held_out, since in rows} == {(True, date(2000, 1, 1)), (False, None)}
    readout = built.warehouse.rows(
        "select variant, units, no_interval_reason from marts.experiment_readouts where as_of_date = %s "
        "and experiment = 'holdout' and metric = 'orders in 90 days' and tier = 'all' order by variant",
        END,
    )
    before = {
        account
        for account, day in plain.first_orders(built.company, END).items()
        if day <= END - timedelta(days=90)
    }
    held_out = sum(plain_experiments.is_held_out(account) for account in before)
    why = f"too few units for an interval: {held_out} in the smaller group, and it takes 30"
    assert readout == [
        ("acted on", len(before) - held_out, why), ("held out", held_out, None)
    ]  # fmt: skip


def test_accounts_gone_inactive_are_told_once_with_every_cause(built: Built) -> None:
    for as_of in DATES:
        expected = {}
        for customer, first in plain.first_orders(built.company, as_of).items():
            last = max(day for who, day, _ in built.company.orders if who == customer and day <= as_of)
            if plain.month_of(as_of) <= last + timedelta(days=90) <= as_of:
                expected[customer] = "new, never grew" if (last - first).days < 90 else "old, gone inactive"
        rows = built.warehouse.rows(
            "select account_id, churn_kind, cause from marts.churn_causes where as_of_date = %s", as_of
        )
        assert {account: kind for account, kind, _ in rows} == expected, as_of
        assert built.kpi(as_of, "accounts_gone_inactive") == len(expected)
        for account in expected:
            whose = [each for each in built.company.tickets if each.account.account_id == account]
            is_open = any(
                plain.day_of(each.opened) <= as_of
                and not (each.resolved and plain.day_of(each.resolved) <= as_of)
                for each in whose
            )
            causes = {cause for who, _, cause in rows if who == account}
            assert ("a ticket is still open" in causes) == is_open
            assert causes == {"not told"} or "not told" not in causes
    assert {"a ticket is still open", "not told"} <= {
        cause for (cause,) in built.warehouse.rows("select distinct cause from marts.churn_causes")
    }


def test_what_a_build_of_touched_days_makes_equals_a_full_one(built: Built) -> None:
    """Late, corrected and repeated events, and a day on which an account's last step was taken away."""
    events = built.events
    late, moved = END - timedelta(days=100), END - timedelta(days=50)
    events.land(END, [Event("late", "c001", at(late, 23, 59), "flow_search", None, "late")])
    events.correct(END, "e0", at=at(moved), event_name="flow_cart")
    events.correct(END, "e1", event_name="page_view")
    events.correct(END, "e1", event_name="page_view")
    select = ["build", "--select", "int_usage_days", "int_flow_sessions", "--exclude-resource-type", "test"]
    columns = "account_id, usage_date, flow, session_key, first_step_at, last_step_at, furthest_position, is_completed, path"
    query = f"select {columns} from intermediate.int_flow_sessions order by 1, 2, 4"
    before = built.warehouse.rows(query)
    invoke(select, END, "run-touched")
    touched = built.warehouse.rows(query)
    assert len(set(touched) ^ set(before)) >= 3
    assert built.warehouse.value("select count(*) from intermediate.usage_day_queue") == 0
    invoke([*select, "--full-refresh"], END, "run-full")
    assert built.warehouse.rows(query) == touched


def test_a_failed_build_leaves_the_days_of_flows_queued(built: Built) -> None:
    built.events.land(END, [Event("again", "c002", at(END, 1), "flow_search", None, "again")])
    table = "intermediate.int_flow_sessions"
    built.warehouse.rows(f"alter table {table} add constraint refuse check (path <> 'search') not valid")
    select = ["build", "--select", "int_usage_days", "int_flow_sessions", "--exclude-resource-type", "test"]
    with pytest.raises(StratumError, match="int_flow_sessions"):
        invoke(select, END, "run-refused")
    built.warehouse.rows(f"alter table {table} drop constraint refuse")
    assert built.warehouse.value("select count(*) from intermediate.usage_day_queue") == 1
    invoke(select, END, "run-mended")
    assert built.warehouse.value(
        "select count(*) from intermediate.int_flow_sessions where session_key = 'session again'"
    )
