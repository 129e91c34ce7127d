"""Files are read whole: every readable row with its place, and every row that cannot be read."""

import gzip
from pathlib import Path

import duckdb
import pytest

from include.errors import StratumError
from include.sources.files import open_engine, read_files

MESSY_CSV = b'a,b,c\n1,2,3\n4,5\n6,7,8,9\n"x,1\ny",3,4\n\xff\xfe,1,1\n"q""uote",",",\n'


@pytest.fixture
def engine():
    with open_engine("Asia/Shanghai") as engine:
        yield engine


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def rows(engine: duckdb.DuckDBPyConnection, table: str) -> list[tuple]:
    return engine.execute(f"select * from {table} order by stratum_file, stratum_row").fetchall()


@pytest.mark.parametrize("name", ["orders.csv", "orders.csv.gz"])
def test_csv_rows_that_do_not_parse_are_set_aside_and_the_rest_is_kept(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path, name: str
) -> None:
    assert read_files(engine, [write(tmp_path / name, MESSY_CSV)], ",") == ["a", "b", "c"]
    assert rows(engine, "source_rows") == [
        ("1", "2", "3", name, 1),
        ("x,1\ny", "3", "4", name, 2),
        ('q"uote', ",", None, name, 3),
    ]
    assert [(file, row, fault) for file, row, _, fault in rows(engine, "refused_lines")] == [
        (name, 3, "MISSING COLUMNS"),
        (name, 4, "TOO MANY COLUMNS"),
        (name, 6, "INVALID ENCODING"),  # row 5 takes two lines
    ]


def test_csv_values_are_text_so_that_no_guess_changes_them(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    read_files(engine, [write(tmp_path / "a.csv", b"id,day\n007,2024-01-01\n 8 ,no\n")], ",")
    assert rows(engine, "source_rows") == [("007", "2024-01-01", "a.csv", 1), (" 8 ", "no", "a.csv", 2)]


def test_jsonl_gives_the_union_of_keys_as_text_and_sets_aside_what_is_no_object(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    content = b'{"a":1.50,"b c":"x"}\n{"a":2,"d":{"e":1}}\n{"a":3,,}\n\n[1]\n{"it\'s":true,"a":null}\n'
    columns = read_files(engine, [write(tmp_path / "a.jsonl", content)], ",")
    assert columns == ["a", "b c", "d", "it's"]
    assert rows(engine, "source_rows") == [
        ("1.5", "x", None, None, "a.jsonl", 1),
        ("2", None, '{"e":1}', None, "a.jsonl", 2),
        (None, None, None, "true", "a.jsonl", 6),
    ]
    assert [(row, line) for _, row, line, _ in rows(engine, "refused_lines")] == [
        (3, '{"a":3,,}'),
        (5, "[1]"),
    ]


def test_parquet_keeps_its_types_and_numbers_its_rows(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    engine.execute(
        f"copy (select range + 1 as n, range * 0.5 as x from range(3)) to '{tmp_path}/a.parquet' (format parquet)"
    )
    assert read_files(engine, [tmp_path / "a.parquet"], ",") == ["n", "x"]
    assert [(row[0], float(row[1]), *row[2:]) for row in rows(engine, "source_rows")] == [
        (1, 0.0, "a.parquet", 1),
        (2, 0.5, "a.parquet", 2),
        (3, 1.0, "a.parquet", 3),
    ]


def test_several_files_are_one_source_each_with_its_own_row_numbers(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    for folder in ("2023", "2024"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.csv", f"n\n{folder}\n{folder}x\n".encode())
    read_files(engine, [tmp_path / "2023" / "a.csv", tmp_path / "2024" / "a.csv"], ",")
    assert rows(engine, "source_rows") == [
        ("2023", "2023/a.csv", 1),
        ("2023x", "2023/a.csv", 2),
        ("2024", "2024/a.csv", 1),
        ("2024x", "2024/a.csv", 2),
    ]


FAULTY = {
    "an empty csv": ({"a.csv": b""}, r"a\.csv is empty"),
    "a column named twice": ({"a.csv": b"x,y,X\n"}, r"a\.csv names the column 'x' twice"),
    "other headers": ({"a.csv": b"x,y\n", "b.csv": b"x,z\n"}, r"b\.csv has the columns x, z, but .*a\.csv has x, y"),
    "other kinds": ({"a.csv": b"x\n", "b.jsonl": b"{}\n"}, r"differ in kind \(csv, jsonl\)"),
    "text named parquet": ({"a.parquet": b"x,y\n1,2\n"}, r"a\.parquet cannot be read as parquet"),
    "text named gz": ({"a.csv.gz": None}, r"a\.csv\.gz cannot be read as csv"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "said"), FAULTY.values(), ids=FAULTY.keys())
def test_a_file_that_is_not_what_it_says_is_named_in_one_line(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path, files: dict[str, bytes | None], said: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(b"x,y\n1,2\n" if content is None else content)
    with pytest.raises(StratumError, match=said) as fault:
        read_files(engine, [tmp_path / name for name in files], ",")
    assert "\n" not in str(fault.value)
