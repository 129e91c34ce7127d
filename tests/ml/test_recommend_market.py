"""Recommendations on the simulated company: above popularity, since its accounts buy within the categories they began."""

from datetime import date
from pathlib import Path

import duckdb
import pytest

from include.simulate.market.scales import Scale
from include.simulate.market.write import write_market
from ml.params import RecommendationParams, section_of
from ml.recommend import POPULARITY, choose

DAY = date(2025, 12, 29)

pytestmark = pytest.mark.extended


def test_the_chosen_method_is_above_popularity_on_the_simulated_company(tmp_path: Path) -> None:
    write_market(tmp_path / "company", Scale("some", 1_500, 40_000, 2_000), 7)
    with duckdb.connect() as engine:
        purchases = engine.execute(
            "select distinct customer_no as account_id, sku as product_id, "
            f"date_trunc('day', ordered_at)::timestamp as order_date from '{tmp_path}/company/orders.parquet' "
            "where customer_no is not null and quantity > 0 order by 1, 2, 3"
        ).df()
    choice = choose(purchases, DAY, section_of("recommendations", RecommendationParams))
    print("", *choice.figures, sep="\n")
    assert choice.method != POPULARITY
    gain = next(one for one in choice.figures if one.method.endswith(f" - {POPULARITY}"))
    assert gain.low is not None
    assert gain.low > 0
