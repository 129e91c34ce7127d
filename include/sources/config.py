"""sources.yml: what the company is, where its data lies, how it maps to the contract, where results go.

`load_sources` turns the file into a `Sources`, or says in one line which key is wrong. What each key means
stands in docs/contracts/sources.md.
"""

import glob
import os
import re
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from include.dates import zone
from include.errors import StratumError
from include.settings import get_settings
from include.sources.record_contract import ENTITIES, FILES
from include.sources.record_models import records_model

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
CURRENCY = re.compile(r"[A-Z]{3}")
CONNECTION = re.compile(r"[A-Za-z0-9_.-]+")
QUOTED_OR_COMMENT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
FILE_KIND, DATABASE_KIND = "<file>", "<database>"
"""The kinds of orders as pydantic names them in the place of a fault; a user's key holds no such sign."""
CRM_FIELD = r"^[A-Za-z][A-Za-z0-9_]*$"
ACCOUNT_NUMBER_FIELDS = {"salesforce": "AccountNumber", "bottlecrm": "account_number"}
"""Where the account number is unless the sources say otherwise; HubSpot's is a property of a fixed name."""
REASON = re.compile(r"[a-z][a-z0-9_]*")
FILE_KINDS = (".csv", ".csv.gz", ".parquet", ".jsonl", ".jsonl.gz")
OUR_REASONS = (
    "price_not_positive",
    "sign_contradicts_type",
    "no_exchange_rate",
    "implausible_date",
    "duration_negative",
    "repeated",
)
OUR_PREFIXES = ("unreadable_", "missing_")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Company(_Section):
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


class QuarantineRule(_Section):
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


class Columns(_Section):
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


class RowSource(_Section):
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

    @field_validator("file")
    @classmethod
    def _known_kind(cls, file: str) -> str:
        if not file.endswith(FILE_KINDS):
            raise ValueError(f"'{file}' is not a kind of file that is read: {', '.join(FILE_KINDS)}")
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
        if not CONNECTION.fullmatch(name):  # not quoted: it may be a URL with a password
            raise ValueError(
                "it is not the id of an Airflow connection (letters, digits, _ . -). Keep the address and the "
                "login in AIRFLOW_CONN_<ID>"
            )
        return name

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
    """The mapping of event files."""

    section: ClassVar[str] = "behavior"
    columns: EventColumns


class RecordFile(FileSource):
    """The mapping of files to the records of one entity. With `snapshot` a record that is gone from them is archived."""

    snapshot: bool = False


Records: Any = records_model(_Section, RecordFile, Columns)


class Crm(_Section):
    """The CRM that is pulled: its system and the Airflow connection that reaches it, or `files`.

    `account_number_field` holds the orders' customer number: a field of Salesforce's Account, or the key of a custom
    field of BottleCRM's accounts.
    """

    system: Literal["hubspot", "salesforce", "bottlecrm", "files"]
    connection: str = Field("", min_length=1, validate_default=True)
    account_number_field: str = Field("", pattern=CRM_FIELD)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_system(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("system"), str):
            return given
        system = given["system"]
        if system == FILES and len(given) > 1:
            raise ValueError("of files it names the system alone: the files stand in 'records'")
        if system == "hubspot" and "account_number_field" in given:
            raise ValueError("account_number_field is a key of salesforce and bottlecrm, not of hubspot")
        defaults = {"connection": f"{system}_default"}
        if system in ACCOUNT_NUMBER_FIELDS:
            defaults["account_number_field"] = ACCOUNT_NUMBER_FIELDS[system]
        return defaults | given


class Sync(_Section):
    """Where results go: `fields` maps a property of the target to a column of published.customer_360."""

    target: Literal["hubspot"]
    connection: str = Field("hubspot_default", min_length=1)
    fields: dict[str, str] = Field(min_length=1)
    create: bool = False


def _kind_of_orders(given: Any) -> str:
    is_database = isinstance(given, DatabaseOrders) or (isinstance(given, dict) and "connection" in given)
    return DATABASE_KIND if is_database else FILE_KIND


OrdersOfAKind = Annotated[
    Annotated[Orders, Tag(FILE_KIND)] | Annotated[DatabaseOrders, Tag(DATABASE_KIND)],
    Discriminator(_kind_of_orders),
]


class Sources(_Section):
    """All of a sources.yml; a source that is not there is None, which is absent and not an error."""

    company: Company
    orders: OrdersOfAKind | None = None
    crm: Crm | None = None
    behavior: Behavior | None = None
    records: Records | None = None
    sync: Sync | None = None

    @property
    def record_files(self) -> dict[str, RecordFile]:
        """The entities whose records are read from files, in the order of the contract."""
        given = {name: getattr(self.records, name, None) for name in ENTITIES}
        return {name: files for name, files in given.items() if files is not None}

    @model_validator(mode="after")
    def _one_crm(self) -> "Sources":
        system = self.crm.system if self.crm else None
        of_crm = [name for name in self.record_files if ENTITIES[name].is_crm]
        if system == FILES and "accounts" not in of_crm:
            raise ValueError(
                "crm.system is files, and records.accounts is missing: they say whose its records are"
            )
        if system != FILES and of_crm:
            raise ValueError(
                f"records.{of_crm[0]} is a record of the CRM, and crm.system is {system or 'not given'}: write "
                "crm: {system: files}, or leave it out"
            )
        for name, files in self.record_files.items():
            if system is None and "account_id" in files.columns.expressions():
                raise ValueError(
                    f"records.{name}.columns.account_id is an id of the CRM's, and there is no crm"
                )
        return self

    @field_validator("orders", mode="before")
    @classmethod
    def _one_kind_of_orders(cls, given: Any) -> Any:
        if isinstance(given, dict) and ("file" in given) == ("connection" in given):
            raise ValueError(
                "it names both file and connection, or neither: orders are read from files (file) or from a "
                "database (connection, and table or query)"
            )
        return given

    @field_validator("sync")
    @classmethod
    def _told_where_it_is_pulled(cls, sync: Sync | None, known: ValidationInfo) -> Sync | None:
        crm = known.data.get("crm")
        if crm and sync and crm.system != sync.target:
            raise ValueError(
                f"its target is {sync.target} and crm.system {crm.system}: the record ids that are told come from "
                "the CRM that is pulled. Leave sync out, or pull the same system"
            )
        return sync


def load_sources(path: Path) -> Sources:
    """Read a sources.yml.

    `${VARIABLE}` in any value is replaced from the environment (STRATUM_HOME from the settings), and a
    relative `file` is taken from the folder of the yml. Raises StratumError, one line naming the
    file and the key, where the file is missing, is not YAML, or holds a key or value that is not known.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StratumError(f"The sources file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise StratumError(f"The sources file {path} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise StratumError(f"The sources file {path} is not valid YAML: {_one_line(str(error))}") from error
    if not isinstance(document, dict):
        raise StratumError(f"The sources file {path} must be a mapping with the key 'company'.")
    document = _expanded(document, path)
    _anchor(document, path.resolve().parent)
    try:
        return Sources.model_validate(document)
    except ValidationError as error:
        raise StratumError(f"{path}: {_fault(error.errors()[0])}") from error


def _checked_zone(name: str) -> str:
    try:
        zone(name)
    except StratumError as error:
        raise ValueError(str(error)) from error
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


def _expanded(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda match: _variable(match[1], path), value)
    return value


def _variable(name: str, path: Path) -> str:
    if name == "STRATUM_HOME":
        return str(get_settings().home)
    if value := os.environ.get(name):
        return value
    raise StratumError(f"{path} uses ${{{name}}}, which is not set. Set the environment variable {name}.")


def _anchor(document: dict[str, Any], folder: Path) -> None:
    records = document.get("records")
    mapped = list(records.values()) if isinstance(records, dict) else []
    for given in (document.get(Orders.section), document.get(Behavior.section), *mapped):
        if isinstance(given, dict) and isinstance(given.get("file"), str):
            given["file"] = str(folder / Path(given["file"]).expanduser())


def _fault(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"] if part not in (FILE_KIND, DATABASE_KIND))
    if error["type"] == "extra_forbidden":
        return f"the key '{place}' is not known. Is it a typo, or one level too deep or too high?"
    if error["type"] == "missing":
        return f"the key '{place}' is missing."
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        return (f"{place}: " if place else "") + message + ("" if message.endswith(".") else ".")
    return f"{place}: {_one_line(error['msg'])}, but it is {error['input']!r}."


def _one_line(text: str) -> str:
    return " ".join(text.split())
