"""Arrow batches into PostgreSQL by binary COPY, within a transaction that is open already."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from pgpq import ArrowToPostgresBinaryEncoder
from pgpq.encoders import StringEncoderBuilder
from pgpq.schema import Jsonb
from psycopg import sql


def copy_arrow(
    connection: psycopg.Connection, table: sql.Composable, reader: Any, jsonb: Collection[str] = ()
) -> int:
    """Append the batches of a pyarrow.RecordBatchReader to the columns of its names; return how many rows.

    `jsonb` are text columns that go to columns of that type. While PostgreSQL takes in one batch the next is read and
    encoded by a thread: two batches are in memory at most.
    """
    encoder = ArrowToPostgresBinaryEncoder.new_with_encoders(
        reader.schema,
        {
            field.name: StringEncoderBuilder.new_with_output(field, Jsonb())
            if field.name in jsonb
            else ArrowToPostgresBinaryEncoder.infer_encoder(field)
            for field in reader.schema
        },
    )
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
