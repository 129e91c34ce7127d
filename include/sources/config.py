"""sources.yml: what the company is, where its data lies, how it maps to the contract, where results go.

`load_sources` turns the file into a `Sources`, or says in one line which key is wrong. What each key means
stands in docs/contracts/sources.md.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from include.errors import StratumError
from include.settings import get_settings
from include.sources.record_contract import ENTITIES, FILES
from include.sources.record_models import records_model
from include.sources.row_sources import (
    Behavior,
    Columns,
    Company,
    DatabaseOrders,
    Orders,
    RecordFile,
    Section,
)
from include.sync.mapping import SyncMapping

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
FILE_KIND, DATABASE_KIND = "<file>", "<database>"
"""The kinds of orders as pydantic names them in the place of a fault; a user's key holds no such sign."""
CRM_FIELD = r"^[A-Za-z][A-Za-z0-9_]*$"
IN_WORDS = {
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "dict_type": "it must be a mapping",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be {ge} or more",
    "int_from_float": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "less_than_equal": "it must be {le} or less",
    "literal_error": "it must be {expected}",
    "string_pattern_mismatch": "it must be the name of a field: a letter, then letters, digits and _",
    "string_too_long": "it must be no longer than {max_length}",
    "string_too_short": "it must not be empty",
    "string_type": "it must be text, in quotes where it looks like something else",
    "too_short": "it must not be empty",
    "tuple_type": "it must be a list",
}
"""Fault as pydantic names it → what to say of a value; its own words are those of a Python programmer."""
ACCOUNT_NUMBER_FIELDS = {"salesforce": "AccountNumber", "bottlecrm": "account_number"}
"""Where the account number is unless the sources say otherwise; HubSpot's is a property of a fixed name."""
HUBSPOT_ACCOUNT_NUMBER = "account_number"


Records: Any = records_model(Section, RecordFile, Columns)


class Crm(Section):
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


def _kind_of_orders(given: Any) -> str:
    is_database = isinstance(given, DatabaseOrders) or (isinstance(given, dict) and "connection" in given)
    return DATABASE_KIND if is_database else FILE_KIND


OrdersOfAKind = Annotated[
    Annotated[Orders, Tag(FILE_KIND)] | Annotated[DatabaseOrders, Tag(DATABASE_KIND)],
    Discriminator(_kind_of_orders),
]


class Sources(Section):
    """All of a sources.yml; a source that is not there is None, which is absent and not an error."""

    company: Company
    orders: OrdersOfAKind | None = None
    crm: Crm | None = None
    behavior: Behavior | None = None
    records: Records | None = None
    sync: dict[str, SyncMapping] = Field(default_factory=dict)
    """Target's name → how it is told; written in a file of its own, which `sync` in sources.yml names."""

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
    def _told_where_it_is_pulled(
        cls, sync: dict[str, SyncMapping], known: ValidationInfo
    ) -> dict[str, SyncMapping]:
        crm = known.data.get("crm")
        for name, mapping in sync.items():
            if crm and mapping.system not in (crm.system, "webhook"):
                raise ValueError(
                    f"the system of {name} is {mapping.system} and crm.system {crm.system}: the record ids that are "
                    "told come from the CRM that is pulled. Leave it out, or pull the same system"
                )
            if crm and mapping.create and mapping.system == crm.system:
                number = crm.account_number_field or HUBSPOT_ACCOUNT_NUMBER
                told = mapping.columns | mapping.columns_at_creation
                if told.get(number) != "account_id":
                    raise ValueError(
                        f"{name} makes records without {number}, by which the next pull knows whose they are: add "
                        f"{number}: account_id to its create_fields, or make it the external_key"
                    )
        targets = [mapping.target for mapping in sync.values()]
        if doubled := next((target for target in targets if targets.count(target) > 1), None):
            raise ValueError(f"two targets are {doubled}: their books would be one. Give each a connection")
        return sync


def load_sources(path: Path) -> Sources:
    """Read a sources.yml, and the sync.yml it names.

    `${VARIABLE}` in any value is replaced from the environment (STRATUM_HOME from the settings), and a
    relative `file` is taken from the folder of the yml. Raises StratumError, one line naming the
    file and the key, where the file is missing, is not YAML, or holds a key or value that is not known.
    """
    document = _read_yaml(path, "sources file")
    if not isinstance(document, dict):
        raise StratumError(f"The sources file {path} must be a mapping with the key 'company'.")
    sync_file = path
    if "sync" in document:
        sync_file, document["sync"] = _sync_document(document["sync"], path)
    document = _expanded(document, path)
    _anchor(document, path.resolve().parent)
    try:
        return Sources.model_validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["loc"][:1] == ("sync",):
            raise StratumError(f"{sync_file}: {_fault(fault, inside=1)}") from error
        raise StratumError(f"{path}: {_fault(fault)}") from error


def _read_yaml(path: Path, what: str) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StratumError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise StratumError(f"The {what} {path} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise StratumError(f"The {what} {path} is not valid YAML: {_one_line(str(error))}") from error


def _sync_document(named: Any, path: Path) -> tuple[Path, dict[str, Any]]:
    """Return the sync.yml that a sources.yml names, from the folder of the latter, and what it holds."""
    if not isinstance(named, str):
        raise StratumError(
            f"{path}: sync names the file that says what each target is told, such as sync: sync.yml."
        )
    file = path.resolve().parent / Path(named).expanduser()
    document = _read_yaml(file, "sync file")
    if not isinstance(document, dict):
        raise StratumError(f"The sync file {file} must be a mapping of targets.")
    return file, document


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
        if isinstance(given, dict) and isinstance(given.get("file"), str) and "://" not in given["file"]:
            given["file"] = str(folder / Path(given["file"]).expanduser())


def _fault(error: ErrorDetails, inside: int = 0) -> str:
    """Say what is wrong where; the place leaves out its first parts, `inside` of them, which stand for a whole file."""
    place = ".".join(str(part) for part in error["loc"][inside:] if part not in (FILE_KIND, DATABASE_KIND))
    if error["type"] == "unknown_key":
        key = f"{place}.{error['ctx']['key']}" if place else error["ctx"]["key"]
        return (
            f"the key '{key}' is not known. Is it a typo, or one level too deep or too high? "
            f"The keys there are {error['ctx']['keys']}."
        )
    if error["type"] == "missing":
        return f"the key '{place}' is missing."
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        return (f"{place}: " if place else "") + message + ("" if message.endswith(".") else ".")
    given = "empty" if error["input"] is None else repr(error["input"])
    words = IN_WORDS.get(error["type"])
    must = words.format(**error.get("ctx", {})) if words else _one_line(error["msg"])
    return f"{place}: {must}, but it is {given}."


def _one_line(text: str) -> str:
    return " ".join(text.split())
