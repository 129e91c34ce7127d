"""Arrow batches into PostgreSQL by binary COPY, within a transaction that is open already."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql


def copy_arrow(connection: psycopg.Connection, table: sql.Composable, reader: Any) -> int:
    """Append the batches of a pyarrow.RecordBatchReader to the columns of its names; return how many rows.

    While PostgreSQL takes in one batch the next is read and encoded by a thread: two batches are in memory at most.
    """
    encoder = ArrowToPostgresBinaryEncoder(reader.schema)
    columns = sql.SQL(", ").join(map(sql.Identifier, reader.schema.names))
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(table, columns)

    def encoded() -> bytes | None:
        batch = next(reader, None)
        return None if batch is None else encoder.write_batch(batch)

    with ThreadPoolExecutor(max_workers=1) as pool, connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            copy.write(encoder.write_header())
            coming = pool.submit(encoded)
            while (block := coming.result()) is not None:
                coming = pool.submit(encoded)
                copy.write(block)
            copy.write(encoder.finish())
        return cursor.rowcount
