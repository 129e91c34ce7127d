"""The guard of a mapping: what a user writes in sources.yml is one SQL scalar expression and nothing else.

The text is parsed by DuckDB itself and its tree is walked, so the guard and the engine read it alike. A
scalar expression may use the file's columns, constants, operators, CASE, casts and functions whose value
depends on their arguments alone (a lambda or a list comprehension is an argument like another, and is looked
through): no sub-select, no aggregate or window, no function that reads files, the settings or the clock.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

import duckdb

from include.errors import StratumError

SCALAR_CLASSES = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "OPERATOR",
    "TYPE",
}
CLOCKS = ("age", "current_localtime", "current_localtimestamp")  # DuckDB calls these consistent
NAMES = {
    "SUBQUERY": "a sub-select",
    "WINDOW": "a window function",
    "STAR": "*",
    "PARAMETER": "a parameter",
}


class Guard:
    """Checks expressions against the columns of one source; `origin` names it in messages.

    `binary` are columns of the source that are not in the table, since they hold no text.
    """

    def __init__(
        self,
        engine: duckdb.DuckDBPyConnection,
        table: str,
        columns: Iterable[str],
        origin: str,
        binary: Iterable[str] = (),
    ):
        self._engine = engine
        self._table = table
        self._columns = list(columns)
        self._known = {column.lower() for column in self._columns}
        self._binary = {column.lower() for column in binary}
        self._origin = origin

    @cached_property
    def _functions(self) -> dict[str, list[tuple[str, str | None, str | None, list[str]]]]:
        """Kind, stability, and of a macro definition and parameters, of the engine's functions by name.

        They are thousands: who calls none does not ask for them.
        """
        functions: dict[str, list[tuple[str, str | None, str | None, list[str]]]] = {}
        rows = self._engine.execute(
            "select lower(function_name), function_type, stability, macro_definition, parameters "
            "from duckdb_functions() where schema_name = 'main'"
        ).fetchall()
        for name, *about in rows:
            functions.setdefault(name, []).append(tuple(about))
        return functions

    def check(self, place: str, text: str, boolean: bool = False) -> set[str]:
        """Return the columns that `text` names, in small letters, where it may be evaluated per row.

        `boolean` asks that its value be true or false. Raises StratumError, naming `place` (a key of
        sources.yml), where it may not.
        """
        used = set()
        for node, parameters in _expressions(self._parsed(place, text)):
            if not _names_one_of(node, parameters):
                self._check_node(place, text, node)
                if node["class"] == "COLUMN_REF":
                    used.add(node["column_names"][0].lower())
        try:
            ((_, kind, *_),) = self._engine.execute(
                f"describe select ({text}\n) from {self._table}"  # noqa: S608 - parsed and walked above
            ).fetchall()
        except duckdb.Error as error:
            raise StratumError(
                f"{place}: the expression {text!r} does not fit {self._origin}: {first_line(error)} "
                "(the columns of csv, jsonl and databases are text: cast them, as in price::decimal(18,4))."
            ) from error
        if boolean and kind != "BOOLEAN":
            raise StratumError(
                f"{place}: the rule {text!r} must be true or false, but its value is of type {kind}."
            )
        return used

    def columns(self, place: str, text: str) -> set[str]:
        """Return the names, in small letters, of the columns that an expression reads, be they there or not."""
        return {
            node["column_names"][0].lower()
            for node, parameters in _expressions(self._parsed(place, text))
            if node["class"] == "COLUMN_REF" and not _names_one_of(node, parameters)
        }

    def _parsed(self, place: str, text: str) -> Any:
        # The line break keeps a trailing `--` from hiding the closing bracket.
        (tree,) = self._engine.execute("select json_serialize_sql(?)", [f"select ({text}\n)"]).fetchall()[0]
        parsed = json.loads(tree)
        if parsed["error"]:
            raise StratumError(
                f"{place}: {text!r} is not a SQL scalar expression: {parsed['error_message'].splitlines()[0]} "
                "(a column whose name is a word of SQL, or holds a space, stands in double quotes)."
            )
        statements = [statement["node"] for statement in parsed["statements"]]
        node = statements[0]
        plain = (
            len(statements) == 1
            and node["type"] == "SELECT_NODE"
            and len(node["select_list"]) == 1
            and node["from_table"]["type"] == "EMPTY"
            and not node["modifiers"]
            and not node["where_clause"]
            and not node["group_expressions"]
            and not node["having"]
            and not node["qualify"]
        )
        if not plain:
            raise StratumError(f"{place}: {text!r} must be one scalar expression, not a statement.")
        return node["select_list"][0]

    def _check_node(self, place: str, text: str, node: dict[str, Any]) -> None:
        kind = node["class"]
        if kind not in SCALAR_CLASSES:
            raise StratumError(
                f"{place}: the expression {text!r} holds {NAMES.get(kind, kind.lower())}; "
                "only scalar expressions over the columns of the row are allowed."
            )
        if kind == "LAMBDA" and node["syntax_type"] != "LAMBDA_KEYWORD":
            raise StratumError(
                f"{place}: the expression {text!r} holds ->, which is read as a lambda. Write lambda x: ..., and for a "
                "value of JSON ->> or json_extract()."
            )
        if kind == "COLUMN_REF" and node["column_names"][0].lower() in self._binary:
            raise StratumError(
                f"{place}: the expression {text!r} names the column '{node['column_names'][0]}', which holds "
                f"binary data in {self._origin}. Only text, numbers, times and truth values can be mapped."
            )
        if kind == "COLUMN_REF" and node["column_names"][0].lower() not in self._known:
            raise StratumError(
                f"{place}: the expression {text!r} names the column '{node['column_names'][0]}', which "
                f"{self._origin} does not have. Its columns are: {', '.join(self._columns)}."
            )
        if kind == "FUNCTION" and not self._is_pure(node["function_name"].lower()):
            raise StratumError(
                f"{place}: the expression {text!r} calls {node['function_name']}(), which is not a scalar "
                "function of its arguments alone."
            )

    def _is_pure(self, name: str) -> bool:
        """Tell whether every function of this name depends on its arguments alone (macros: what they call too)."""
        if name not in self._functions or name in CLOCKS:
            return False
        return all(
            stability == "CONSISTENT"
            if kind == "scalar"
            else kind == "macro" and definition is not None and self._is_pure_macro(definition, parameters)
            for kind, stability, definition, parameters in self._functions[name]
        )

    def _is_pure_macro(self, definition: str, parameters: list[str]) -> bool:
        # A name that is no parameter is a value of the session, such as current_timestamp.
        known = {parameter.lower() for parameter in parameters}
        return all(
            node["class"] in SCALAR_CLASSES
            and (node["class"] != "FUNCTION" or self._is_pure(node["function_name"].lower()))
            and (node["class"] != "COLUMN_REF" or _names_one_of(node, known | bound))
            for node, bound in _expressions(self._parsed("a function of DuckDB", definition))
        )


def first_line(error: Exception) -> str:
    """Return the first line of an error of DuckDB, without its class name and final full stop."""
    return str(error).splitlines()[0].partition("Error: ")[2].rstrip(".") or str(error).splitlines()[0]


def _expressions(
    tree: Any, parameters: frozenset[str] = frozenset()
) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Yield each expression of a tree with the parameters, in small letters, of the lambdas around it."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree, parameters
        if tree.get("class") == "LAMBDA":
            own = {
                node["column_names"][0].lower()
                for node, _ in _expressions(tree["lhs"])
                if "column_names" in node
            }
            yield from _expressions(tree["expr"], parameters | own)
            return
        for child in tree.values():
            yield from _expressions(child, parameters)
    elif isinstance(tree, list):
        for child in tree:
            yield from _expressions(child, parameters)


def _names_one_of(node: dict[str, Any], names: Collection[str]) -> bool:
    return node["class"] == "COLUMN_REF" and node["column_names"][0].lower() in names
