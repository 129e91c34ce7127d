"""What the ERP recorded: products, and the lines of orders and returns, with the faults that befall such records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.simulate.market.population import BURSTS, CATEGORIES, COUNTRIES, Floats, Ints, Population
from include.simulate.market.scales import DAY_US, DAYS, EPOCH_DAY, WEEKS, stream

PRODUCTS_PER_CATEGORY = 60
CATEGORY_NAMES = (
    "Fasteners", "Safety", "Tools", "Packaging", "Electrical", "Cleaning",
    "Adhesives", "Bearings", "Storage", "Welding", "Pumps", "Lighting",
)  # fmt: skip
LINES = (0.45, 0.30, 0.25)
"""Shares of orders with one, two and three lines."""
LIKED_BY = 0.5
"""A category's weight among those that an account buys in: the chance that it took to it, to this power."""
RETURN_RATE = 0.02
"""Of lines; a return comes 2 to 21 days later."""
NO_CUSTOMER_RATE = 0.01
"""Of orders, as all below of lines."""
REPEATED_RATE, PRICE_ZERO_RATE, WRONG_SIGN_RATE = 0.003, 0.002, 0.001


def labels(prefix: str, numbers: Ints, width: int) -> pa.Array:
    """Return numbers as text: a prefix and `width` digits with leading zeros.

    Written digit by digit over the whole column: to format each number would take most of a generation's time.
    """
    letters = np.frombuffer(prefix.encode(), dtype=np.uint8)
    text = np.empty((len(numbers), len(letters) + width), dtype=np.uint8)
    text[:, : len(letters)] = letters
    rest = numbers.astype(np.uint32) if width < 10 else numbers.astype(np.uint64)
    for place in range(text.shape[1] - 1, len(letters) - 1, -1):
        shorter = rest // 10
        text[:, place] = rest - shorter * 10 + ord("0")
        rest = shorter
    ends = np.arange(len(numbers) + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(ends), pa.py_buffer(text))


def named(places: NDArray[np.integer], names: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    """Return the names at `places` as a dictionary column, which costs its numbers alone."""
    values = names if isinstance(names, pa.Array) else pa.array(names)
    return pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32)), values)


def instants(days: Ints, seconds: Ints) -> pa.Array:
    """Return days of the calendar (0 the first) and seconds of the day as timestamps without a zone."""
    return pa.array((days + EPOCH_DAY) * DAY_US + seconds * 1_000_000).cast(pa.timestamp("us"))


def products(seed: int) -> pa.Table:
    """Return the catalogue: product_id, name, category, list_price. One row per product."""
    number = np.arange(CATEGORIES * PRODUCTS_PER_CATEGORY)
    return pa.table(
        {
            "product_id": labels("P", number, 5),
            "name": pc.binary_join_element_wise(
                named(number // PRODUCTS_PER_CATEGORY, CATEGORY_NAMES).cast(pa.string()),
                pa.array(number % PRODUCTS_PER_CATEGORY + 1).cast(pa.string()),
                " ",
            ),
            "category": named(number // PRODUCTS_PER_CATEGORY, CATEGORY_NAMES),
            "list_price": money(list_prices(seed)),
        }
    )


def list_prices(seed: int) -> Floats:
    """Return the price of each product in fen, whole numbers from 300 to some 200,000."""
    return np.floor(
        300 + np.exp(2.2 + 1.6 * stream(seed, 1).standard_normal(CATEGORIES * PRODUCTS_PER_CATEGORY)) * 400
    )


def order_lines(
    accounts: Population, codes: pa.Array, seed: int, block: int, first_order: int
) -> tuple[pa.Table, "Orders"]:
    """Return the lines of a block by time, faults included, and the orders without faults.

    `codes` are the accounts' numbers in the ERP. Columns: order_no, customer_no (null: nobody wrote it down),
    ordered_at, sku, product_category, quantity, unit_price, country. One row per line.
    """
    random = stream(seed, block, 10)
    orders = _orders(accounts, random)
    count = 1 + random.choice(len(LINES), len(orders.account), p=LINES)
    order = np.repeat(np.arange(len(orders.account)), count)
    account, day = orders.account[order], orders.day[order]
    product = _products_of(accounts, account, day // 7, random)
    quantity = 1 + np.floor(accounts.size[account] * (1 + 4 * random.random(len(order)) ** 2)).astype(
        np.int64
    )
    discount = np.where(accounts.size[account] > 6, 0.88, np.where(accounts.size[account] > 2, 0.95, 1.0))
    price = np.floor(list_prices(seed)[product] * discount)
    price = np.where(random.random(len(order)) < PRICE_ZERO_RATE, 0.0, price)
    quantity = np.where(random.random(len(order)) < WRONG_SIGN_RATE, -quantity, quantity)
    back = np.flatnonzero(random.random(len(order)) < RETURN_RATE)
    back_day = day[back] + 2 + random.integers(0, 20, len(back))
    back = back[back_day < DAYS]
    back_day = back_day[back_day < DAYS]
    lines = np.concatenate([np.arange(len(order)), back])
    is_return = np.arange(len(lines)) >= len(order)
    days = np.concatenate([day, back_day])
    repeated = np.flatnonzero(random.random(len(lines)) < REPEATED_RATE)
    lines, is_return, days = (
        np.concatenate([values, values[repeated]]) for values in (lines, is_return, days)
    )
    placed = np.lexsort((orders.second[order[lines]], days))
    lines, is_return, days = lines[placed], is_return[placed], days[placed]
    whose = order[lines]
    anonymous = (random.random(len(orders.account)) < NO_CUSTOMER_RATE)[whose]
    returned = np.maximum(1, np.abs(quantity[lines]) // 2)
    table = pa.table(
        {
            "order_no": _order_numbers(whose + first_order, is_return),
            "customer_no": pa.DictionaryArray.from_arrays(
                pa.array(account[lines].astype(np.int32), mask=anonymous), codes
            ),
            "ordered_at": instants(days, orders.second[whose]),
            "sku": named(product[lines], labels("P", np.arange(CATEGORIES * PRODUCTS_PER_CATEGORY), 5)),
            "product_category": named(product[lines] // PRODUCTS_PER_CATEGORY, CATEGORY_NAMES),
            "quantity": pa.array(np.where(is_return, -returned, quantity[lines])),
            "unit_price": money(price[lines]),
            "country": named(accounts.country[account[lines]], COUNTRIES),
        }
    )
    return table, orders


def first_purchases(lines: pa.Table, accounts: int) -> Ints:
    """Return the day of each account's first line in each category (accounts × categories), as recorded; DAYS for none."""
    known = lines.select(["customer_no", "product_category", "ordered_at"]).drop_null().combine_chunks()
    account, category, at = (column.chunk(0) for column in known.columns)
    first = np.full((accounts, CATEGORIES), DAYS)
    day = at.cast(pa.int64()).to_numpy() // DAY_US - EPOCH_DAY
    np.minimum.at(first, (account.indices.to_numpy(), category.indices.to_numpy()), day)
    return first


def _order_numbers(numbers: Ints, is_return: NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(is_return), labels("R", numbers, 9), labels("O", numbers, 9))


@dataclass(frozen=True)
class Orders:
    """The orders of a block: whose (place in the block), on which day of the calendar, at which second of it."""

    account: Ints
    day: Ints
    second: Ints


def _orders(accounts: Population, random: np.random.Generator) -> Orders:
    rate = accounts.order_rate
    bursts = random.standard_gamma(BURSTS, rate.shape, dtype=np.float32) / np.float32(BURSTS)
    count = random.poisson(rate * bursts).ravel()
    cell = np.repeat(np.arange(count.size), count)
    day = cell % WEEKS * 7 + random.integers(0, 5, len(cell))  # offices order on working days
    second = 9 * 3600 + (9 * 3600 * random.random(len(cell))).astype(np.int64)
    by_time = np.argsort(day * 86_400 + second, kind="stable")  # numbers are given as they come in
    return Orders(cell[by_time] // WEEKS, day[by_time], second[by_time])


def _products_of(accounts: Population, account: Ints, week: Ints, random: np.random.Generator) -> Ints:
    """Return a product for each line: of a category that the account has begun to buy in, the newest rarest."""
    has = accounts.adopts[account] <= week[:, None]
    weight = np.where(has, accounts.adoption[account] ** LIKED_BY, 0).cumsum(axis=1)
    chosen = random.random(len(account)) * weight[:, -1]
    category = (weight < chosen[:, None]).sum(axis=1)
    place = (PRODUCTS_PER_CATEGORY * random.random(len(account)) ** 2).astype(np.int64)
    return np.minimum(category, CATEGORIES - 1) * PRODUCTS_PER_CATEGORY + place


def money(fen: NDArray[np.floating]) -> pa.Array:
    """Return amounts in fen as exact decimals of the currency."""
    # A decimal128 is a 16-byte integer: the number of hundredths, and its sign.
    low = np.floor(fen).astype(np.int64)
    both = np.stack([low, low >> 63], axis=1)
    return pa.Array.from_buffers(pa.decimal128(18, 2), len(low), [None, pa.py_buffer(both)])
