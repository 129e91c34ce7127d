"""Connections to outside systems: their address and token, from where Airflow keeps them."""

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from include.errors import StratumError


@dataclass(frozen=True)
class ApiConnection:
    """Where an API is and the token that opens it. Its text form does not show the token."""

    conn_id: str
    host: str | None
    """Base URL such as https://api.hubapi.com; None for the vendor's own address."""
    token: str = field(repr=False)
    extra: dict[str, str] = field(repr=False, default_factory=dict)
    """The connection's extras, blank ones left out."""


def get_connection(conn_id: str) -> ApiConnection:
    """Return the Airflow connection `conn_id` of an API: its password is the token.

    Read from the environment variable AIRFLOW_CONN_<ID> in either of Airflow's forms (JSON or URI), else,
    inside a task, from Airflow's connections. Raises StratumError where neither knows it, it cannot be
    read, or it has no token.
    """
    parts = _parts(conn_id, "JSON with host and password (the API token)")
    if not parts.token:
        raise StratumError(f"The connection '{conn_id}' has no password: put the API token there.")
    return ApiConnection(conn_id, parts.base_url(), parts.token, parts.extras())


def database_url(conn_id: str) -> str:
    """Return the Airflow connection `conn_id` of a database as a URL. It holds a password: never print it.

    Found as `get_connection` finds it. Of the JSON form and of Airflow's own connections, `conn_type` is the
    scheme (or `sqlalchemy_scheme` in `extra`, as Airflow has it), `schema` the database, and the rest of
    `extra` the driver's options. Raises StratumError where there is none or it cannot be read.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if text := os.environ.get(variable):
        if not text.lstrip().startswith("{"):
            return text
        try:
            value = json.loads(text)
            extra = value.get("extra") or {}
            value["extra"] = json.loads(extra) if isinstance(extra, str) else extra
        except ValueError:
            # The parser's own words could show the password.
            raise StratumError(
                f"{variable} is not a connection: write it as a URI or as JSON, as Airflow does."
            ) from None
        return _composed(value)
    found = airflow_connection(conn_id)
    if found is None:
        raise StratumError(
            f"No connection '{conn_id}'. Set {variable} to a URL such as postgresql://user:password@host/database, "
            "or add it to Airflow's connections."
        )
    names = ("conn_type", "login", "password", "host", "port", "schema")
    return _composed({name: getattr(found, name) for name in names} | {"extra": found.extra_dejson})


def _composed(parts: dict[str, Any]) -> str:
    options = {name: value for name, value in parts["extra"].items() if isinstance(value, str | int)}
    scheme = options.pop("sqlalchemy_scheme", None) or parts.get("conn_type") or ""
    host, database = parts.get("host") or "", parts.get("schema") or ""
    if scheme == "sqlite":  # Airflow keeps the path in the host
        host, database = "", database or host
    login = ":".join(quote(part, safe="") for part in (parts.get("login"), parts.get("password")) if part)
    port = f":{parts['port']}" if parts.get("port") else ""
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{login}{'@' if login else ''}{host}{port}/{quote(database)}{query}"


@dataclass(frozen=True)
class LoginConnection:
    """How to log in to an API that gives sessions, not tokens. Its text form shows no secret."""

    conn_id: str
    host: str | None
    """Base URL that all calls go to; None for the vendor's own addresses."""
    login: str | None
    password: str | None = field(repr=False)
    extra: dict[str, str] = field(repr=False)
    """The connection's extras under Airflow's names, blank ones left out."""


def get_login(conn_id: str) -> LoginConnection:
    """Return the Airflow connection `conn_id` of an API one logs in to, read as `get_connection` reads it.

    Raises StratumError where it is not known or cannot be read.
    """
    parts = _parts(conn_id, "JSON with login, password and extra")
    return LoginConnection(
        conn_id, parts.base_url(), parts.login or None, parts.token or None, parts.extras()
    )


def _parts(conn_id: str, wanted: str) -> "_Parts":
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if not (text := os.environ.get(variable)):
        return _from_airflow(conn_id, variable, wanted)
    try:
        return _from_json(text) if text.lstrip().startswith("{") else _from_uri(text)
    except ValueError:
        # The parser's own words could show the token.
        raise StratumError(
            f"{variable} is not a connection: write it as a URI or as JSON, as Airflow does."
        ) from None


@dataclass(frozen=True)
class _Parts:
    conn_type: str
    host: str
    schema: str
    port: int | None
    token: str
    login: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def base_url(self) -> str | None:
        """Return scheme://host[:port]; the scheme stands in the host, the schema or the connection type."""
        if not self.host:
            return None
        known = [part for part in (self.schema, self.conn_type) if part in ("http", "https")]
        url = self.host if "://" in self.host else f"{known[0] if known else 'https'}://{self.host}"
        return url.rstrip("/") + (f":{self.port}" if self.port else "")

    def extras(self) -> dict[str, str]:
        """Return the extras as texts, blank ones left out."""
        return {name: str(value) for name, value in self.extra.items() if value not in (None, "")}


def _from_json(text: str) -> _Parts:
    value = json.loads(text)
    port = value.get("port")
    extra = value.get("extra") or {}
    return _Parts(
        value.get("conn_type") or "",
        value.get("host") or "",
        value.get("schema") or "",
        int(port) if port else None,
        value.get("password") or "",
        value.get("login") or "",
        json.loads(extra) if isinstance(extra, str) else extra,
    )


def _from_uri(text: str) -> _Parts:
    conn_type, separator, rest = text.partition("://")
    if not separator:
        raise ValueError("no scheme")
    protocol, has_protocol, after = rest.partition("://")
    split = urlsplit(f"{protocol}://{after}" if has_protocol else f"//{rest}")
    host = unquote(split.hostname or "")
    if has_protocol:
        host = f"{protocol}://{host}"
    return _Parts(
        conn_type,
        host,
        unquote(split.path.strip("/")),
        split.port,
        unquote(split.password or ""),
        unquote(split.username or ""),
        dict(parse_qsl(split.query)),
    )


def _from_airflow(conn_id: str, variable: str, wanted: str) -> _Parts:
    found = airflow_connection(conn_id)
    if found is None:
        raise StratumError(
            f"No connection '{conn_id}'. Set {variable} to {wanted}, or add it to Airflow's connections."
        )
    return _Parts(
        found.conn_type or "",
        found.host or "",
        found.schema or "",
        found.port,
        found.password or "",
        found.login or "",
        found.extra_dejson,
    )


def airflow_connection(conn_id: str) -> Any | None:
    """Return Airflow's connection of this id; None outside a task, or where Airflow knows none."""
    if "airflow.sdk.execution_time.task_runner" not in sys.modules:
        return None
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return Connection.get(conn_id)
    except AirflowNotFoundException:
        return None
