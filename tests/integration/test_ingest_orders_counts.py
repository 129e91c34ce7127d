"""The counts of a load equal those of an independent computation: on random rows, and on real orders."""

from collections import Counter
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.sources.config import Sources
from include.sources.orders import ingest_orders
from tests.conftest import Warehouse
from tests.integration.test_ingest_orders import HEADER, make_sources

pytestmark = pytest.mark.extended

AS_OF = date(2024, 3, 1)
ROW = st.tuples(
    st.sampled_from(["S1", "S2", "R1", ""]),
    st.sampled_from(["A", "B", ""]),
    st.sampled_from(["2024-03-01 09:00:00", "2024-03-01 10:00:00", "2024-03-02 00:00:00", "1.3.2024", ""]),
    st.sampled_from(["P1", "P2", "FREIGHT", " "]),
    st.just("Bolt"),
    st.sampled_from(["1", "2", "-1", "0", "one", ""]),
    st.sampled_from(["10.00", "0.01", "0", "-1", "dear", ""]),
    st.sampled_from(["", "CNY", "XXX", "?"]),
)
GOOD = ("S0", "A", "2024-03-01 08:00:00", "P1", "Bolt", "1", "1.00", "")


def outcome(row: tuple[str, ...]) -> str:
    """What the contract says of a row, written without a look at the mapping's code."""
    order, _, at, product, _, quantity, price, currency = row
    if at == "2024-03-02 00:00:00":
        return "later"
    unreadable = {
        "unreadable_quantity": quantity == "one",
        "unreadable_unit_price": price == "dear",
        "unreadable_currency": currency == "?",
        "unreadable_ordered_at": at == "1.3.2024",
    }
    missing = {
        "missing_order_id": order == "",
        "missing_product_id": product == " ",
        "missing_quantity": quantity == "",
        "missing_unit_price": price == "",
        "missing_ordered_at": at == "",
    }
    for reason, holds in (unreadable | missing).items():
        if holds:
            return reason
    if float(price) <= 0:
        return "price_not_positive"
    if float(quantity) == 0 or (float(quantity) < 0) != order.startswith("R"):
        return "sign_contradicts_type"
    return "no_exchange_rate" if currency == "XXX" else "kept"


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(ROW, min_size=1, max_size=40))
def test_random_rows_all_end_up_where_the_contract_says(
    warehouse: Warehouse, tmp_path: Path, rows: list[tuple[str, ...]]
) -> None:
    rows = [GOOD, *rows]
    path = tmp_path / "orders.csv"
    path.write_text(HEADER + "".join(",".join(row) + "\n" for row in rows))
    expected = Counter(outcome(row) for row in rows)
    kept, later = expected.pop("kept"), expected.pop("later", 0)
    load = ingest_orders(make_sources(path), AS_OF)
    assert load is not None
    assert load.reasons == expected
    assert load.rows_in == len(rows) - later == kept + expected.total()
    assert (load.rows_new + load.rows_corrected + load.rows_unchanged, load.rows_later) == (kept, later)
    assert load.rows_unattributed == sum(row[1] == "" and outcome(row) == "kept" for row in rows)
    assert warehouse.value("select count(*) from quarantine.rows where last_load_id = %s", load.load_id) == (
        expected.total()
    )
    assert warehouse.value("select count(*) from raw_files.order_lines where load_id = %s", load.load_id) == (
        load.rows_new + load.rows_corrected
    )
    again = ingest_orders(make_sources(path), AS_OF)
    assert again is not None
    assert (again.rows_unchanged, again.reasons) == (kept, expected)


def test_online_retail_ii_as_of_2011_09_10_counts_as_pandas_does(
    warehouse: Warehouse, online_retail: Sources
) -> None:
    load = ingest_orders(online_retail, date(2011, 9, 10))
    assert load is not None

    frame = pd.read_parquet(online_retail.orders.file)
    lines = frame[frame["InvoiceDate"] < "2011-09-11"].copy()
    is_return = lines["InvoiceNo"].str.startswith("C")
    is_unpriced = lines["UnitPrice"] <= 0
    is_contradictory = ~is_unpriced & ((lines["Quantity"] < 0) != is_return)
    kept = lines[~is_unpriced & ~is_contradictory].copy()
    services = {
        "POST", "DOT", "C2", "C3", "M", "m", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK", "GIFT",
        "ADJUST", "ADJUST2", "TEST001", "TEST002",
    }  # fmt: skip
    kept["line_type"] = is_return.map({True: "return", False: "sale"})
    kept.loc[kept["StockCode"].isin(services), "line_type"] = "non_product"
    # Cents rounded half away from zero, in whole numbers: the price has at most four decimals.
    hundredths = kept["Quantity"] * (kept["UnitPrice"] * 10_000).round().astype("int64")
    kept["cents"] = (hundredths.abs() + 50) // 100 * hundredths.map(lambda value: 1 if value >= 0 else -1)

    assert load.reasons == {
        "price_not_positive": int(is_unpriced.sum()),
        "sign_contradicts_type": int(is_contradictory.sum()),
    }
    assert (load.rows_in, load.rows_new, load.rows_later) == (len(lines), len(kept), len(frame) - len(lines))
    assert load.rows_unattributed == kept["CustomerID"].isna().sum()
    assert (load.rows_in, load.rows_new, load.rows_unattributed) == (836_992, 831_645, 186_838)
    landed = warehouse.rows(
        "select line_type, coalesce(customer_id, ''), count(*), (sum(amount) * 100)::bigint "
        "from raw_files.order_lines group by 1, 2 order by 1, 2"
    )
    kept["customer"] = kept["CustomerID"].astype("string").fillna("")
    grouped = kept.groupby(["line_type", "customer"])["cents"].agg(["size", "sum"]).sort_index()
    assert landed == [(*key, int(row["size"]), int(row["sum"])) for key, row in grouped.iterrows()]
