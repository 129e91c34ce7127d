"""The simulated company of any size: believable structure, set faults, and a hidden truth that comes true."""

import json
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest
from scipy.stats import rankdata

from include.errors import StratumError
from include.simulate.market import behavior, orders, population
from include.simulate.market.scales import FIRST_DAY, LAST_DAY, Scale, month_ends, scale_of
from include.simulate.market.write import write_market

SMALL = Scale("tiny", 3_000, 150_000, 900_000)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market") / "company"
    write_market(folder, SMALL, seed=5)
    return folder


def ask(market: Path, query: str, **arguments: object) -> list[tuple]:
    with duckdb.connect() as engine:
        for path in market.rglob("*.parquet"):
            if path.parent.name != "events":
                engine.execute(f"create view {path.stem}_{path.parent.name} as from '{path}'")
        engine.execute(
            f"create view events as from read_parquet('{market}/events/*.parquet', filename = true)"
        )
        return engine.execute(query, arguments).fetchall()


def auc(outcome: np.ndarray, score: np.ndarray) -> float:
    ranks, positives = rankdata(score), outcome.sum()
    return (ranks[outcome].sum() - positives * (positives + 1) / 2) / (positives * (~outcome).sum())


def judged(market: Path, as_of: date, active_days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, of accounts with an order in the days before, whether none came after, the truth, and recency."""
    rows = ask(
        market,
        """
        with bought as (
            select customer_no, max(ordered_at::date) filter (where ordered_at::date <= $as_of) as last,
                count(*) filter (where ordered_at::date > $as_of and ordered_at::date <= $as_of + 90) as after
            from orders_company where order_no like 'O%' group by customer_no
        )
        select after = 0, no_order_90d, $as_of - last from bought
        join churn_truth on customer_no = account_no and as_of_date = $as_of
        where last > $as_of - $active::int""",
        as_of=as_of,
        active=active_days,
    )
    return tuple(np.asarray(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("active_days", [90, 2000])
def test_the_true_hazard_ranks_as_well_as_intended_and_recency_falls_behind(
    market: Path, active_days: int
) -> None:
    for as_of in (date(2025, 3, 31), date(2025, 6, 30), date(2025, 9, 30)):
        silent, truth, recency = judged(market, as_of, active_days)
        assert 0.78 < auc(silent, truth) < 0.88
        assert auc(silent, recency.astype(float)) < auc(silent, truth) - 0.05


def test_the_true_hazard_comes_true_in_every_tenth(market: Path) -> None:
    found = [
        judged(market, as_of, 2000)[:2] for as_of in (date(2025, 3, 31), date(2025, 6, 30), date(2025, 9, 30))
    ]
    silent, truth = (np.concatenate(parts) for parts in zip(*found, strict=True))
    tenths = np.array_split(np.argsort(truth), 10)
    off = [abs(silent[tenth].mean() - truth[tenth].mean()) for tenth in tenths]
    # Three dates share accounts, so the interval is wider than that of so many coins.
    allowed = [
        3.5 * np.sqrt(max(truth[tenth].mean() * (1 - truth[tenth].mean()), 1e-3) / len(tenth))
        for tenth in tenths
    ]
    assert sum(one <= most for one, most in zip(off, allowed, strict=True)) == 10


def test_the_same_seed_makes_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    few = Scale("few", 200, 10_000, 60_000)
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        write_market(tmp_path / name, few, seed)
    for name in ("orders", "events/2025-05", "crm/opportunities", "truth/churn"):
        one, again, other = (
            (tmp_path / folder / f"{name}.parquet").read_bytes() for folder in ("one", "again", "other")
        )
        assert again == one
        assert other != one


def test_orders_and_events_come_near_the_numbers_of_the_scale(market: Path) -> None:
    ((placed,),) = ask(market, "select count(distinct order_no) from orders_company where order_no like 'O%'")
    ((happened,),) = ask(market, "select count(*) from events")
    assert placed == pytest.approx(SMALL.orders, rel=0.08)
    assert happened == pytest.approx(SMALL.events, rel=0.08)


def test_few_accounts_make_most_of_the_revenue(market: Path) -> None:
    revenue = np.asarray(
        ask(
            market,
            "select sum(quantity * unit_price)::double from orders_company where customer_no <> '' group by customer_no",
        )
    ).ravel()
    top = np.sort(revenue)[::-1][: len(revenue) // 5].sum() / revenue.sum()
    assert 0.75 < top < 0.97


def test_engagement_shows_in_logins_tickets_and_answers(market: Path) -> None:
    ((logins, tickets, scores),) = ask(
        market,
        """
        with felt as (select account_no, engagement from churn_truth where as_of_date = date '2025-06-30'),
        known as (select account_no, crm_id from accounts_crm where account_no is not null)
        select
            (select corr(engagement, ln(1 + n)) from felt join (select account_no, count(*) as n from events
                where event = 'login' and occurred_at::date between '2025-06-01' and '2025-06-30' group by 1)
                using (account_no)),
            (select corr(engagement, n) from felt join known using (account_no) join (select crm_id, count(*) as n
                from tickets_crm where opened_at::date between '2025-05-01' and '2025-07-31' group by 1) using (crm_id)),
            (select corr(engagement, score) from felt join known using (account_no) join survey_answers_crm using (crm_id)
                where answered_at::date between '2025-05-15' and '2025-08-15')
        """,
    )
    assert logins > 0.3
    assert tickets < -0.1
    assert scores > 0.3


def test_answers_are_credible_and_fall_before_accounts_leave(market: Path) -> None:
    """Of the second year: NPS by each contact's newest answer, CSAT by the share of 4 and 5."""
    ((nps, account_nps, people, content, leaving, staying),) = ask(
        market,
        """
        with newest as (
            select crm_id, contact_id, arg_max(case when score >= 9 then 100 when score <= 6 then -100 else 0 end,
                answered_at) as points
            from survey_answers_crm where answered_at >= date '2025-01-01' group by all
        ),
        per_account as (select crm_id, avg(points) as points, count(*) as people from newest group by all),
        known as (
            select crm_id, no_order_90d from accounts_crm join churn_truth using (account_no)
            where as_of_date = date '2025-06-30' and account_no is not null
        ),
        june as (select * from survey_answers_crm join known using (crm_id)
            where answered_at between date '2025-05-15' and date '2025-08-15')
        select (select avg(points) from newest), (select avg(points) from per_account),
            (select avg(people) from per_account),
            (select avg((csat >= 4)::int) from tickets_crm where resolved_at >= date '2025-01-01' and csat is not null),
            (select avg(score) from june where no_order_90d > 0.5), (select avg(score) from june where no_order_90d < 0.2)
        """,
    )
    assert 20 < nps < 60
    assert 20 < account_nps < 60
    assert abs(nps - account_nps) > 1, "accounts with many contacts count as often as others"
    assert people > 1.3
    assert 0.7 < content < 0.9
    assert leaving < staying - 0.5


def test_faults_come_at_their_rates(market: Path) -> None:
    ((no_customer, repeated, price),) = ask(
        market,
        """select avg((customer_no is null)::int), 1 - count(distinct (order_no, sku, quantity, unit_price)) / count(*),
            avg((unit_price = 0)::int) from orders_company""",
    )
    assert no_customer == pytest.approx(orders.NO_CUSTOMER_RATE, rel=0.2)
    # An order may hold two equal lines by itself.
    assert 0.8 * orders.REPEATED_RATE < repeated < 3 * orders.REPEATED_RATE
    assert price == pytest.approx(orders.PRICE_ZERO_RATE, rel=0.3)
    ((nameless, doubled, late),) = ask(
        market,
        """select avg((event is null)::int), 1 - count(distinct event_no) / count(*),
            avg((strftime(occurred_at, '%Y-%m') <> parse_filename(filename, true))::int) from events""",
    )
    assert nameless == pytest.approx(behavior.NO_NAME_RATE, rel=0.3)
    assert doubled == pytest.approx(behavior.REPEATED_RATE, rel=0.3)
    assert 0 < late < behavior.LATE_RATE


def test_an_event_is_never_delivered_before_it_happened(market: Path) -> None:
    assert ask(
        market,
        "select count(*) from events where strftime(occurred_at, '%Y-%m') > parse_filename(filename, true)",
    ) == [(0,)]


def test_purchases_leak_at_the_comparison_and_less_in_the_variant(market: Path) -> None:
    rows = dict(
        ask(
            market,
            """
            with begun as (
                select account_no, session_no, bool_or(event = 'flow_cart') as went_on,
                    min(occurred_at)::date >= date '2025-02-24' as is_on
                from events where account_no is not null group by all having bool_or(event = 'flow_compare')
                    and not bool_or(event = 'flow_checkout')
            )
            select variant, avg(went_on::int) from begun join experiment_assignments_reference using (account_no)
            where is_on group by variant""",
        )
    )
    # Of those that leave, 0.55 at the comparison and 0.30 at the cart; the variant keeps 0.30 of the former.
    leaves = behavior.LEAVES_AT[1] / (behavior.LEAVES_AT[1] + behavior.LEAVES_AT[2])
    assert rows["control"] == pytest.approx(1 - leaves, abs=0.03)
    assert rows["treatment"] == pytest.approx(1 - leaves * (1 - population.EXPERIMENT_STAYS), abs=0.03)


def test_every_order_placed_online_ends_a_flow(market: Path) -> None:
    ((checkouts,),) = ask(market, "select count(distinct event_no) from events where event = 'flow_checkout'")
    ((placed,),) = ask(market, "select count(distinct order_no) from orders_company where order_no like 'O%'")
    assert checkouts == pytest.approx(behavior.ONLINE_SHARE * placed, rel=0.03)


def test_contracts_wait_days_for_their_signature_and_some_wait_still(market: Path) -> None:
    ((hours, unsigned, renewed),) = ask(
        market,
        """select median(date_diff('hour', sent_at, signed_at)), count(*) - count(signed_at),
            count(*) filter (where contract_id in (select 'V' || lpad(((substr(contract_id, 2))::int + 1)::text, 9, '0')
            from contracts_crm)) from contracts_crm""",
    )
    assert 55 < hours < 95
    assert unsigned > 0
    assert renewed > 0


def test_stages_follow_each_other_in_time_and_end_where_the_opportunity_stands(market: Path) -> None:
    assert ask(
        market,
        """
        with walked as (
            select opportunity_id, arg_max(stage, entered_at) as last, count(*) as steps,
                count(distinct entered_at) as moments from opportunity_stages_crm group by 1
        )
        select count(*) filter (where last <> stage), count(*) > 100, bool_or(steps > 1)
        from opportunities_crm join walked using (opportunity_id)""",
    ) == [(0, True, True)]


def test_accounts_are_referred_by_accounts_that_were_there_before(market: Path) -> None:
    ((wrong, rows),) = ask(
        market,
        """select count(*) filter (where old.created_at >= referred_at), count(*) from referrals_crm
            join accounts_crm as old using (crm_id) where not old.account_no is null""",
    )
    assert wrong == 0
    assert rows > 10


def test_trials_become_customers_or_never_order(market: Path) -> None:
    rows = dict(
        ask(
            market,
            """
            select stage, count(distinct orders_company.customer_no) / count(distinct crm_id)
            from opportunities_crm join accounts_crm using (crm_id) left join orders_company on customer_no = account_no
            where type = 'trial' group by stage""",
        )
    )
    assert rows["lost"] == 0
    assert rows["won"] > 0.6


def test_a_trial_that_does_not_convert_logs_in_no_more_once_it_is_over(market: Path) -> None:
    ((longest, trials),) = ask(
        market,
        """
        with lost as (
            select 'C' || lpad(((crm_id::bigint - 1000000) // 2)::text, 7, '0') as account_no
            from opportunities_crm where type = 'trial' and stage = 'lost'
        )
        select max(days), count(*) from (select date_diff('day', min(occurred_at), max(occurred_at)) as days
            from events join lost using (account_no) group by account_no)""",
    )
    assert trials > 20
    assert longest < 7 * population.TRIAL_WEEKS


def test_the_crm_has_its_usual_disorder(market: Path) -> None:
    ((records, unnumbered, doubled, parents, tests),) = ask(
        market,
        """select count(*), count(*) filter (where account_no is null), count(*) - count(distinct domain),
            count(parent_crm_id), count(*) filter (where is_test) from accounts_crm""",
    )
    assert records > SMALL.accounts
    assert unnumbered > 0.02 * records
    assert doubled == records - SMALL.accounts > 0
    assert parents > 0
    assert tests > 0
    assert ask(
        market,
        "select count(*) from accounts_crm as child where parent_crm_id is not null "
        "and not exists (from accounts_crm as parent where parent.crm_id = child.parent_crm_id)",
    ) == [(0,)]


def test_nothing_is_dated_after_the_last_day(market: Path) -> None:
    end = LAST_DAY + timedelta(days=1)
    dated = (
        ("orders_company", "ordered_at"), ("events", "occurred_at"), ("accounts_crm", "created_at"),
        ("contacts_crm", "created_at"), ("opportunities_crm", "created_at"), ("opportunities_crm", "closed_at"),
        ("opportunity_stages_crm", "entered_at"), ("contracts_crm", "sent_at"), ("contracts_crm", "signed_at"),
        ("tickets_crm", "opened_at"), ("tickets_crm", "resolved_at"), ("survey_answers_crm", "answered_at"),
    )  # fmt: skip
    for table, column in dated:
        assert ask(market, f"select max({column}) < $end from {table}", end=end) == [(True,)], (table, column)


def test_the_truth_knows_each_month_end_and_lies_apart(market: Path) -> None:
    assert [
        row[0] for row in ask(market, "select distinct as_of_date from churn_truth order by 1")
    ] == month_ends()
    assert {
        path.parent.name
        for path in market.rglob("*.parquet")
        if path.stem in ("churn", "upsell", "new_category")
    } == {"truth"}
    assert json.loads((market / "truth" / "effects.json").read_text())["relative_lift_of_orders"] > 0


def test_new_categories_are_bought_as_the_truth_tells_of_each_and_of_any(market: Path) -> None:
    """In each tenth, from the least likely up: those an account has taken to and not bought in yet are the likeliest."""
    of_each = ask(
        market,
        """
        with first_bought as (
            select customer_no as account_no, product_category as category, min(ordered_at::date) as first
            from orders_company group by all
        )
        select first_purchase_90d, coalesce(first between as_of_date + 1 and as_of_date + 90, false),
            coalesce(first <= as_of_date, false)
        from upsell_truth left join first_bought using (account_no, category)
        where as_of_date = date '2025-06-30' and account_no in (
            select account_no from first_bought group by account_no having min(first) <= date '2025-06-30')""",
    )
    of_any = ask(
        market,
        """
        with first_bought as (
            select customer_no as account_no, product_category, min(ordered_at::date) as first
            from orders_company group by all
        )
        select new_category_90d, bool_or(first between as_of_date + 1 and as_of_date + 90)
        from new_category_truth join first_bought using (account_no) where as_of_date = date '2025-06-30'
        group by account_no, new_category_90d having min(first) <= date '2025-06-30'""",
    )
    chance, bought, had_bought = (np.asarray(column) for column in zip(*of_each, strict=True))
    assert not had_bought.any()
    assert auc(bought, chance) > 0.88
    in_any, came = (np.asarray(column) for column in zip(*of_any, strict=True))
    assert auc(came, in_any) > 0.8
    for told, true in ((chance, bought), (in_any, came)):
        for tenth in np.array_split(np.argsort(told), 10):
            mean = told[tenth].mean()
            allowed = 3.5 * np.sqrt(mean * (1 - mean) / len(tenth)) + 1e-3
            assert abs(true[tenth].mean() - mean) <= allowed


def test_a_folder_of_another_company_is_refused_and_the_same_one_left_alone(market: Path) -> None:
    stamp = (market / "orders.parquet").stat().st_mtime_ns
    write_market(market, SMALL, seed=5)
    assert (market / "orders.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(StratumError, match="holds something else"):
        write_market(market, SMALL, seed=6)


def test_a_scale_that_does_not_exist_is_refused() -> None:
    with pytest.raises(StratumError, match="Choose one of XS, S, M, L"):
        scale_of("XL")


def test_the_calendar_begins_on_a_monday() -> None:
    assert FIRST_DAY.weekday() == 0
