"""Values of typed properties, as HubSpot takes and keeps them.

https://developers.hubspot.com/docs/api-reference/crm-properties-v3/guide: a date and a moment come as ISO 8601 or as
milliseconds since 1970; a date must be midnight UTC.
"""

import re
from datetime import UTC, datetime, time, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CODES = {"number": "INVALID_INTEGER", "date": "INVALID_DATE", "datetime": "INVALID_DATE"}
"""Type of a property → the code a value is refused with that is none of it."""


def kept(kind: str, text: str) -> str:
    """Return a value as it is answered: dates as YYYY-MM-DD, moments in UTC. Raises ValueError where it is none."""
    if not text or kind not in CODES:
        return text
    if kind == "number":
        float(text)
        return text
    if re.fullmatch(r"-?\d+", text):
        moment = EPOCH + timedelta(milliseconds=int(text))
    else:
        given = datetime.fromisoformat(text)
        moment = (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
    if kind == "datetime":
        return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace(
            "+00:00", "Z"
        )
    if moment.time() != time():
        raise ValueError(f"{text} is not midnight UTC")
    return moment.date().isoformat()
