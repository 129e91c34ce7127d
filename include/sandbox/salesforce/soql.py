"""The part of SOQL that Stratum and the official clients send, read strictly: what is not known is malformed.

select FIELD [, FIELD ...] from OBJECT [where CONDITION [and CONDITION ...]] [order by FIELD [asc|desc]] [limit N].
A field may name one of a parent (`Account.SystemModstamp`); a condition compares a field with a literal, or asks
whether it is `in (LITERAL, ...)`.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')"
    r"|(?P<moment>\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))?)"
    r"|(?P<number>-?\d+(?:\.\d+)?)"
    r"|(?P<word>[A-Za-z]\w*(?:\.[A-Za-z]\w*)?)"
    r"|(?P<sign><=|>=|!=|=|<|>|\(|\)|,))"
)
SIGNS = ("=", "!=", "<", "<=", ">", ">=")


class Malformed(Exception):
    """Text that is no query of the subset."""


@dataclass(frozen=True)
class Condition:
    """A field, a sign of SIGNS or `in`, and the literal it is compared with (of `in` a tuple)."""

    field: str
    sign: str
    value: Any


@dataclass(frozen=True)
class Query:
    """A parsed query; conditions all have to hold."""

    fields: tuple[str, ...]
    object_name: str
    conditions: tuple[Condition, ...] = ()
    order_by: str | None = None
    descending: bool = False
    limit: int | None = None


def parse(text: str) -> Query:
    """Read a query. Raises Malformed for anything outside the subset."""
    reader = _Reader(text)
    reader.keyword("select")
    fields = [reader.word("a field")]
    while reader.next_is(","):
        fields.append(reader.word("a field"))
    reader.keyword("from")
    object_name = reader.word("an object")
    conditions: list[Condition] = []
    if reader.has("where"):
        conditions.append(_condition(reader))
        while reader.has("and"):
            conditions.append(_condition(reader))
    order_by, descending = None, False
    if reader.has("order"):
        reader.keyword("by")
        order_by = reader.word("a field")
        descending = reader.has("desc")
        if not descending:
            reader.has("asc")
    limit = None
    if reader.has("limit"):
        limit = int(reader.literal())
    reader.end()
    return Query(tuple(fields), object_name, tuple(conditions), order_by, descending, limit)


def _condition(reader: "_Reader") -> Condition:
    field = reader.word("a field")
    if reader.has("in"):
        reader.sign("(")
        values = [reader.literal()]
        while reader.next_is(","):
            values.append(reader.literal())
        reader.sign(")")
        return Condition(field, "in", tuple(values))
    return Condition(field, reader.sign(*SIGNS), reader.literal())


class _Reader:
    """Takes a text apart, one token after the other."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.strip()
        while at < len(text):
            match = TOKEN.match(text, at)
            if match is None:
                raise Malformed(f"unexpected token: '{text[at : at + 20]}'")
            self.tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
            at = match.end()
        self.at = 0

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "<EOF>")

    def has(self, keyword: str) -> bool:
        kind, text = self._peek()
        found = kind == "word" and text.lower() == keyword
        self.at += found
        return found

    def keyword(self, keyword: str) -> None:
        if not self.has(keyword):
            raise Malformed(f"unexpected token: '{self._peek()[1]}', expecting {keyword}")

    def next_is(self, sign: str) -> bool:
        found = self._peek() == ("sign", sign)
        self.at += found
        return found

    def sign(self, *expected: str) -> str:
        kind, text = self._peek()
        if kind != "sign" or text not in expected:
            raise Malformed(f"unexpected token: '{text}'")
        self.at += 1
        return text

    def word(self, what: str) -> str:
        kind, text = self._peek()
        if kind != "word":
            raise Malformed(f"unexpected token: '{text}', expecting {what}")
        self.at += 1
        return text

    def literal(self) -> Any:
        kind, text = self._peek()
        self.at += 1
        if kind == "text":
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "moment":
            return _moment(text)
        if kind == "word" and text.lower() in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[text.lower()]
        raise Malformed(f"unexpected token: '{text}', expecting a literal")

    def end(self) -> None:
        if self._peek()[0] != "end":
            raise Malformed(f"unexpected token: '{self._peek()[1]}'")


def _moment(text: str) -> datetime | str:
    """Return the instant of a dateTime literal, a date literal as it stands."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if "T" in text else text
    except ValueError as error:
        raise Malformed(f"invalid date: {text}") from error
