"""How far a source has been pulled: written in the load's own transaction, so that it never says more than has landed."""

from include.sources.loads import Load
from include.warehouse.connect import connect


def pulled_until(source: str, entity: str, asked: str) -> str | None:
    """Return up to which value of its cursor an entity has been pulled by the same question; None for all of it.

    A load that was retracted no longer answers, nor does one that began after it and before it was retracted:
    that one may have found unchanged what is gone with it.
    """
    with connect("loader") as connection:
        row = connection.execute(
            "select pulls.value from audit.pulls as pulls inner join audit.loads as loads using (load_id) "
            "where pulls.source = %s and pulls.entity = %s and pulls.asked = %s and loads.status = 'loaded' "
            "and not exists (select from audit.loads as gone where gone.source = loads.source "
            "and gone.entity = loads.entity and gone.status = 'retracted' and gone.load_seq < loads.load_seq "
            "and gone.retracted_at > loads.started_at) "
            "order by pulls.value desc limit 1",
            [source, entity, asked],
        ).fetchone()
    return row[0] if row else None


def record_pull(load: Load, asked: str, value: str | None) -> None:
    """Write down up to which value of the cursor a load has landed everything; nothing where `value` is None."""
    if value is not None:
        load.connection.execute(
            "insert into audit.pulls (load_id, source, entity, asked, value) values (%s, %s, %s, %s, %s)",
            [load.load_id, load.source, load.entity, asked, value],
        )
