"""A small company that does not exist: two years of orders and the accounts its CRM knows.

The same bytes on every machine: only `random.Random.random()`, whose stream Python guarantees across
versions and platforms, and arithmetic that IEEE 754 rounds exactly (no log, no power). Money is counted in
fen. Faults come at set rates, so that the quarantine of a demo is never empty.
"""

import os
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

SEED = 20240701
FIRST_DAY = date(2024, 7, 1)
LAST_DAY = date(2026, 6, 30)
"""The last day with orders: the as-of date of the demo."""
DAYS = (LAST_DAY - FIRST_DAY).days + 1
CUSTOMERS = 600
PROSPECTS = 14
UNKNOWN_TO_CRM = (17, 88, 143, 231, 302, 377, 421, 498, 560)
"""Customers, by number, whom the CRM has no company for."""
HEADER = "order_no,customer_no,ordered_at,sku,product,category,quantity,unit_price,country"

INDUSTRIES = ("Manufacturing", "Retail", "Medical", "Finance", "Electronics", "Construction")
COUNTRIES = ("China",) * 12 + ("Vietnam", "Thailand", "Malaysia", "Singapore")
CATEGORIES = ("Fasteners", "Safety", "Tools", "Packaging", "Electrical", "Cleaning")
PRODUCTS_PER_CATEGORY = 8
FREIGHT_FEN = 3500
# Share of a month's usual orders that are placed, January first: the spring festival, mid-year and year-end.
SEASON = (0.70, 0.45, 0.85, 0.80, 0.85, 1.00, 0.75, 0.75, 0.90, 0.80, 1.00, 0.95)

DORMANT_SHARE = 0.15  # no order in the last 365 days
FADING_SHARE = 0.12  # stopped within the last year
RETURN_RATE = 0.03  # of orders
FREIGHT_RATE = 0.20  # of orders
NO_CUSTOMER_RATE = 0.03  # of orders
REPEATED_RATE = 0.005  # of lines, as all below
PRICE_ZERO_RATE = 0.004
BAD_DATE_RATE = 0.001
BAD_QUANTITY_RATE = 0.002
WRONG_SIGN_RATE = 0.001
TORN_LINE_RATE = 0.0005


@dataclass(frozen=True)
class Customer:
    """One buyer: `size` 1-34 (few are large), mean days between orders, first and last active day (0 = FIRST_DAY)."""

    number: str
    size: float
    gap_days: float
    first_day: int
    last_day: int
    categories: tuple[int, int]
    country: str


@dataclass(frozen=True)
class Line:
    """One line of an order; `unit_price` in fen."""

    customer: str
    at: datetime
    product: int | None  # None is freight
    quantity: int
    unit_price: int
    country: str
    order: int  # number of the order in the order of making, before sorting by time
    is_return: bool = False


def accounts() -> list[dict[str, str]]:
    """Return the companies the CRM of the simulated company holds, one per account.

    Keys: account_number (the orders' customer_no; a prospect has one that never ordered), name, industry,
    country, created_at (ISO 8601 with offset, before the account's first order).
    """
    random = Random(SEED + 1)  # noqa: S311 - simulation
    found = []
    for index, customer in enumerate(customers(), start=1):
        industry = _pick(random, INDUSTRIES)
        created = FIRST_DAY + timedelta(days=customer.first_day - 1 - int(60 * random.random()))
        if index not in UNKNOWN_TO_CRM:
            found.append(_account(customer.number, index, industry, customer.country, created))
    for index in range(CUSTOMERS + 1, CUSTOMERS + PROSPECTS + 1):
        created = LAST_DAY - timedelta(days=20 + int(300 * random.random()))
        found.append(_account(f"C{index:04d}", index, _pick(random, INDUSTRIES), "China", created))
    return found


def write_company(folder: Path) -> None:
    """Write orders.csv and events/ of the simulated company into `folder`; what stands already is not changed."""
    from include.simulate.events import write_events  # which needs the customers and orders made here

    write_events(folder / "events")
    path = folder / "orders.csv"
    text = orders_csv()
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "orders.csv.part"
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)  # a reader sees a whole file or none


@lru_cache(maxsize=1)
def orders_csv() -> str:
    """Return the order lines as CSV text, by time of order, faults included."""
    random = Random(SEED + 2)  # noqa: S311 - simulation
    prices = [int(500 + 180_000 * random.random() * random.random() * random.random()) for _ in _products()]
    lines = [line for customer in customers() for line in _orders_of(customer, prices, random)]
    lines.sort(key=lambda line: (line.at, line.customer, line.order))
    numbers: dict[tuple[str, int, bool], str] = {}
    for line in lines:
        order = (line.customer, line.order, line.is_return)
        numbers.setdefault(order, f"{'R' if line.is_return else 'S'}{len(numbers) + 1:06d}")
    anonymous = {number for number in numbers.values() if random.random() < NO_CUSTOMER_RATE}
    rows = [HEADER]
    for line in lines:
        number = numbers[(line.customer, line.order, line.is_return)]
        rows += _rows(line, number, number in anonymous, random)
    return "\n".join(rows) + "\n"


@lru_cache(maxsize=1)
def customers() -> tuple[Customer, ...]:
    """Return everybody who orders."""
    random = Random(SEED)  # noqa: S311 - simulation
    return tuple(_customer(index, random) for index in range(1, CUSTOMERS + 1))


def _customer(index: int, random: Random) -> Customer:
    size = 1 / (0.03 + 0.97 * random.random())
    gap_days = 18 + 130 * random.random() * random.random()
    first_day = 0 if random.random() < 0.6 else int((DAYS - 60) * random.random())
    last_day = DAYS - 1
    fate = random.random()
    if fate < DORMANT_SHARE:
        first_day = first_day % 180
        last_day = first_day + 30 + int((DAYS - 366 - first_day - 30) * random.random())
    elif fate < DORMANT_SHARE + FADING_SHARE:
        first_day = first_day % 360
        last_day = DAYS - 366 + int(320 * random.random())
    first, second = int(6 * random.random()), int(6 * random.random())
    country = _pick(random, COUNTRIES)
    return Customer(f"C{index:04d}", size, gap_days, first_day, last_day, (first, second), country)


def _orders_of(customer: Customer, prices: list[int], random: Random) -> list[Line]:
    lines: list[Line] = []
    day = customer.first_day + customer.gap_days * random.random()
    engagement = 0.5 + random.random()  # never seen in the data but through the orders
    order = 0
    while day <= customer.last_day:
        engagement = min(1.6, max(0.4, engagement + 0.3 * (random.random() - 0.5)))
        leaving = customer.last_day < DAYS - 1 and customer.last_day - day < 120
        placed = FIRST_DAY + timedelta(days=int(day))
        # The first order is always placed: who is listed has bought at least once.
        if order == 0 or random.random() < SEASON[placed.month - 1]:
            order += 1
            lines += _order(customer, placed, order, prices, random)
        gap = customer.gap_days / engagement * (1.8 if leaving else 1.0)
        day += max(1.0, gap * (0.4 + 1.2 * random.random()))
    return lines


def _order(customer: Customer, placed: date, order: int, prices: list[int], random: Random) -> list[Line]:
    if placed.weekday() >= 5:  # offices order on working days
        placed -= timedelta(days=placed.weekday() - 4)
    minute = 9 * 60 + int(9 * 60 * random.random())
    at = datetime(placed.year, placed.month, placed.day, minute // 60, minute % 60, int(60 * random.random()))
    discount = 0.88 if customer.size > 15 else 0.95 if customer.size > 5 else 1.0
    lines = []
    products = sorted({_product(customer, random) for _ in range(1 + int(5 * random.random()))})
    for product in products:
        quantity = 1 + int(customer.size * (1 + 5 * random.random() * random.random()))
        price = int(prices[product] * discount)
        lines.append(Line(customer.number, at, product, quantity, price, customer.country, order))
    if random.random() < RETURN_RATE:
        sent_back = lines[0]
        back = at + timedelta(days=3 + int(18 * random.random()))
        quantity = -(1 + int(sent_back.quantity * random.random()))
        if back.date() <= LAST_DAY:
            lines.append(
                Line(customer.number, back, sent_back.product, max(quantity, -sent_back.quantity),
                     sent_back.unit_price, customer.country, order, is_return=True)
            )  # fmt: skip
    if random.random() < FREIGHT_RATE:
        lines.append(Line(customer.number, at, None, 1, FREIGHT_FEN, customer.country, order))
    return lines


def _rows(line: Line, number: str, is_anonymous: bool, random: Random) -> list[str]:
    """Return the CSV rows of a line: one, or two where it is repeated, with the faults that befall it."""
    quantity, price, at = str(line.quantity), line.unit_price, line.at.strftime("%Y-%m-%d %H:%M:%S")
    fault = random.random()
    limits = (
        PRICE_ZERO_RATE,
        BAD_DATE_RATE,
        BAD_QUANTITY_RATE,
        WRONG_SIGN_RATE,
        TORN_LINE_RATE,
        REPEATED_RATE,
    )
    befallen = 0
    while befallen < len(limits) and fault >= limits[befallen]:
        fault -= limits[befallen]
        befallen += 1
    if befallen == 0:
        price = 0
    elif befallen == 1:
        at = line.at.strftime("%d.%m.%Y")
    elif befallen == 2:
        quantity = f"{quantity} pcs"
    elif befallen == 3:
        quantity = str(-line.quantity)
    sku, product, category = _product_text(line.product)
    customer = "" if is_anonymous else line.customer
    row = f"{number},{customer},{at},{sku},{product},{category},{quantity},{price // 100}.{price % 100:02d}"
    if befallen == 4:
        return [row]  # torn off before the last column
    row = f"{row},{line.country}"
    return [row, row] if befallen == 5 else [row]


def _product(customer: Customer, random: Random) -> int:
    choice = random.random()
    category = (
        customer.categories[0]
        if choice < 0.6
        else customer.categories[1]
        if choice < 0.85
        else int(6 * random.random())
    )
    return category * PRODUCTS_PER_CATEGORY + int(PRODUCTS_PER_CATEGORY * random.random() * random.random())


def _product_text(product: int | None) -> tuple[str, str, str]:
    if product is None:
        return "FREIGHT", "Freight", "Services"
    category = CATEGORIES[product // PRODUCTS_PER_CATEGORY]
    place = product % PRODUCTS_PER_CATEGORY + 1
    return f"{category[:3].upper()}-{place:02d}", f"{category} item {place}", category


def _products() -> range:
    return range(len(CATEGORIES) * PRODUCTS_PER_CATEGORY)


def _account(number: str, index: int, industry: str, country: str, created: date) -> dict[str, str]:
    return {
        "account_number": number,
        "name": f"Account {index:04d}",
        "industry": industry,
        "country": country,
        "created_at": f"{created.isoformat()}T09:00:00+08:00",
    }


def _pick(random: Random, values: tuple[Any, ...]) -> Any:
    return values[int(len(values) * random.random())]
