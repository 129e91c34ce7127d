"""docs/contracts/publish.md names each view that readers have, and what one row of it is."""

import re

from include.settings import PROJECT_DIR
from include.warehouse.publish import ALL_TABLES

CONTRACT = PROJECT_DIR / "docs" / "contracts" / "publish.md"


def test_the_documented_views_are_the_published_ones() -> None:
    documented = re.findall(
        r"^\| `published\.(\w+)` \| \S[^|]+ \| \S[^|]+ \|$", CONTRACT.read_text(), re.MULTILINE
    )
    assert documented == list(ALL_TABLES)
