"""What sources.yml says of rows, wherever they lie: the company, and how files and databases map to the contract."""

import glob
import os
import re
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from include.dates import zone
from include.errors import StratumError
from include.settings import get_settings

CURRENCY = re.compile(r"[A-Z]{3}")
CONNECTION = re.compile(r"[A-Za-z0-9_.-]+")
QUOTED_OR_COMMENT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
REASON = re.compile(r"[a-z][a-z0-9_]*")
FILE_KINDS = (".csv", ".csv.gz", ".parquet", ".jsonl", ".jsonl.gz")
BUCKET = re.compile(r"(s3|gs|gcs|az|abfs)://[^/:@?]+/|abfss?://[^/:@?]+(@[a-z0-9]+\.dfs\.core\.[a-z.]+)?/")
STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss")
OUR_REASONS = (
    "price_not_positive",
    "sign_contradicts_type",
    "no_exchange_rate",
    "implausible_date",
    "duration_negative",
    "repeated",
)
OUR_PREFIXES = ("unreadable_", "missing_")


class Section(BaseModel):
    """A part of sources.yml: no key but those named."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping_of_known_keys(cls, given: Any) -> Any:
        """Refuse what pydantic would refuse in words of Python's: here it can be said which keys there are."""
        if isinstance(given, cls):
            return given
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        keys = ", ".join(name + (" (needed)" if name in needed else "") for name in cls.model_fields)
        if not isinstance(given, dict):
            raise PydanticCustomError(
                "no_mapping", "it must be a mapping with the keys {keys}", {"keys": keys}
            )
        if unknown := [str(key) for key in given if key not in cls.model_fields]:
            raise PydanticCustomError(
                "unknown_key", "{key} is not among {keys}", {"key": unknown[0], "keys": keys}
            )
        return given


class Company(Section):
    """The one company of a warehouse: its name, its time zone (IANA) and its reporting currency (ISO 4217)."""

    name: str = Field(min_length=1)
    timezone: str = Field(default_factory=lambda: get_settings().timezone)
    currency: str = Field(default_factory=lambda: get_settings().currency)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        return _checked_zone(name)

    @field_validator("currency")
    @classmethod
    def _currency_code(cls, code: str) -> str:
        if not CURRENCY.fullmatch(code):
            raise ValueError(f"'{code}' is not a currency code of three capital letters, such as CNY")
        return code


class QuarantineRule(Section):
    """A rule of the user: rows for which the SQL condition `when` holds are refused under `reason`."""

    reason: str
    when: str = Field(min_length=1)

    @field_validator("reason")
    @classmethod
    def _own_name(cls, reason: str) -> str:
        if not REASON.fullmatch(reason):
            raise ValueError(f"'{reason}' is not a reason: use small letters, digits and _")
        if reason in OUR_REASONS or reason.startswith(OUR_PREFIXES):
            raise ValueError(f"'{reason}' is a reason of Stratum's own: choose another name")
        return reason


class Columns(Section):
    """For each column of a contract, in its order, a SQL scalar expression over the file's columns."""

    def expressions(self) -> dict[str, str]:
        """Return column → expression of the columns that are mapped, in the order of the contract."""
        return {name: text for name, text in self.model_dump().items() if text}


class OrderColumns(Columns):
    """The columns of an order line.

    `amount` is quantity x unit_price where it is not given; the other columns with None stay empty.
    """

    order_id: str = Field(min_length=1)
    customer_id: str = Field(min_length=1)
    product_id: str = Field(min_length=1)
    product_name: str | None = None
    product_category: str | None = None
    country: str | None = None
    quantity: str = Field(min_length=1)
    unit_price: str = Field(min_length=1)
    amount: str | None = None
    currency: str = Field(min_length=1)
    ordered_at: str = Field(min_length=1)


class EventColumns(Columns):
    """The columns of a behavior event; those with None stay empty."""

    event_id: str | None = None
    customer_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    event_name: str = Field(min_length=1)
    feature: str | None = None
    duration_s: str | None = None
    event_at: str = Field(min_length=1)
    flow_step: str | None = None
    properties: str | None = None


class RowSource(Section):
    """The mapping of rows, wherever they lie, to a contract."""

    section: ClassVar[str]
    """Its key in sources.yml."""
    is_ordered: ClassVar[bool] = True
    """Whether the rows come in the same order each time they are read."""
    timezone: str | None = None
    columns: Columns
    quarantine: tuple[QuarantineRule, ...] = ()

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        return None if name is None else _checked_zone(name)

    @field_validator("quarantine")
    @classmethod
    def _reasons_once(cls, rules: tuple[QuarantineRule, ...]) -> tuple[QuarantineRule, ...]:
        reasons = [rule.reason for rule in rules]
        if doubled := {reason for reason in reasons if reasons.count(reason) > 1}:
            raise ValueError(f"it names the reason '{min(doubled)}' twice")
        return rules

    @property
    @abstractmethod
    def origin(self) -> str:
        """What the rows are read from, for messages and the books; no secret."""

    @property
    def natural_key(self) -> tuple[str, ...]:
        """The columns that name a row across loads, of the contract or else of the source; none where no key does."""
        return ()


class FileSource(RowSource):
    """The mapping of files (csv, csv.gz, parquet, jsonl, jsonl.gz; a glob for several) to a contract."""

    file: str = Field(min_length=1)
    delimiter: str = Field(",", min_length=1, max_length=1)
    stores: ClassVar[tuple[str, ...]] = ()
    """Schemes of the object stores that are read."""

    @field_validator("file")
    @classmethod
    def _known_kind(cls, file: str) -> str:
        scheme, is_url, _ = file.partition("://")
        if is_url and scheme not in cls.stores:
            read = f"events alone, from {', '.join(f'{each}://' for each in STORES)}"
            raise ValueError(f"files at {scheme}:// are not read here; object stores are read for {read}")
        if is_url and not BUCKET.match(file):  # not quoted: it may hold a login
            raise ValueError(
                "after :// it names no bucket or container alone. Keep the address and the login of a store in a connection"
            )
        if not file.endswith(FILE_KINDS):
            shown = file.partition("?")[0] if is_url else file  # what follows may be a signature
            raise ValueError(f"'{shown}' is not a kind of file that is read: {', '.join(FILE_KINDS)}")
        return file

    @property
    def origin(self) -> str:
        """The path, or the pattern of the paths."""
        return self.file

    def files(self) -> list[Path]:
        """Return the files, sorted by path. Raises StratumError where there is none."""
        if os.path.isfile(self.file):  # before it is taken for a pattern: a path may hold [ or *
            return [Path(self.file)]
        found = sorted(Path(path) for path in glob.glob(self.file, recursive=True) if os.path.isfile(path))
        if not found:
            raise StratumError(
                f"There is no file {self.file} ({self.section}.file of the sources). Put it there, or correct "
                "the path."
            )
        return found


class OrderRows(RowSource):
    """The mapping of order lines. `key` is the natural key of a line."""

    section: ClassVar[str] = "orders"
    columns: OrderColumns
    return_when: str | None = None
    non_product_when: str | None = None
    key: tuple[str, ...] = Field(("order_id", "product_id"), min_length=1)
    repeated_rows: Literal["number", "first"] = "number"

    @property
    def natural_key(self) -> tuple[str, ...]:
        """The columns that name a line across loads."""
        return self.key

    @property
    def keeps_repeated(self) -> bool:
        """Whether `repeated_rows` says `number`."""
        return self.repeated_rows == "number"


class Orders(OrderRows, FileSource):
    """The mapping of order files."""

    @model_validator(mode="after")
    def _key_is_mapped(self) -> "Orders":
        mapped = self.columns.expressions()
        if unmapped := [name for name in self.key if name not in mapped]:
            raise ValueError(f"key names '{unmapped[0]}', which columns does not map")
        return self


class DatabaseOrders(OrderRows):
    """The mapping of order lines in a database: of a table, or of the rows of one SELECT.

    With `cursor`, a column that never goes back when a row changes, a load reads only the rows from its last
    value on, and `overlap` before that: seconds of a time, else units. `key` may name columns of the source.
    """

    is_ordered: ClassVar[bool] = False
    connection: str = Field(min_length=1)
    table: str | None = None
    query: str | None = None
    cursor: str | None = Field(None, min_length=1)
    overlap: int = Field(3600, ge=0)

    @field_validator("connection")
    @classmethod
    def _no_address(cls, name: str) -> str:
        return _checked_connection(name)

    @field_validator("table")
    @classmethod
    def _table_name(cls, table: str | None) -> str | None:
        if table is not None and not all(part.strip() for part in table.split(".")):
            raise ValueError(
                f"'{table}' is not the name of a table, such as order_lines or sales.order_lines"
            )
        return table

    @field_validator("query")
    @classmethod
    def _one_select(cls, query: str | None) -> str | None:
        return None if query is None else _checked_select(query)

    @model_validator(mode="after")
    def _one_origin(self) -> "DatabaseOrders":
        if (self.table is None) == (self.query is None):
            raise ValueError("it names both table and query, or neither: a database is read by one of them")
        if self.cursor is not None and "key" not in self.model_fields_set:
            raise ValueError(
                "cursor needs key: the columns that name one row, such as the primary key of the table. A load "
                "then sees changed rows alone, and must know which rows they were"
            )
        return self

    @property
    def origin(self) -> str:
        """The table, or `query`, at its connection."""
        return f"{self.table or 'query'} at {self.connection}"


class Behavior(FileSource):
    """The mapping of event files. Rows for which `skip_when` holds are no events.

    `file` may be the URL of objects in a store, which `connection` lets in to.
    """

    section: ClassVar[str] = "behavior"
    stores: ClassVar[tuple[str, ...]] = STORES
    columns: EventColumns
    skip_when: str | None = Field(None, min_length=1)
    connection: str | None = None

    @field_validator("connection")
    @classmethod
    def _no_address(cls, name: str | None) -> str | None:
        return None if name is None else _checked_connection(name)

    @model_validator(mode="after")
    def _connection_of_a_store(self) -> "Behavior":
        if self.connection is not None and "://" not in self.file:
            raise ValueError(
                "connection is for files in an object store, such as s3://bucket/events/*.parquet"
            )
        return self


class RecordFile(FileSource):
    """The mapping of files to the records of one entity. With `snapshot` a record that is gone from them is archived."""

    snapshot: bool = False


def _checked_zone(name: str) -> str:
    try:
        zone(name)
    except StratumError as error:
        raise ValueError(str(error)) from error
    return name


def _checked_connection(name: str) -> str:
    if not CONNECTION.fullmatch(name):  # not quoted: it may be a URL with a password
        raise ValueError(
            "it is not the id of an Airflow connection (letters, digits, _ . -). Keep the address and the "
            "login in AIRFLOW_CONN_<ID>"
        )
    return name


def _checked_select(query: str) -> str:
    """Return the query without a closing semicolon. The database's own read-only transaction is the other guard."""
    query = query.strip().removesuffix(";").rstrip()
    bare = QUOTED_OR_COMMENT.sub(" ", query)
    depth = 0
    for sign in bare:
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0:
            break
    if depth != 0 or ";" in bare or not re.match(r"\s*(select|with)\b", bare, re.IGNORECASE):
        raise ValueError("it must be one SELECT statement that only reads")
    return query
