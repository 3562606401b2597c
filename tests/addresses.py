"""What a page's address says, for the browser tests."""

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit


def query_of(page: Any) -> dict[str, str]:
    """The fields of a page's address, empty ones too."""
    found = parse_qs(urlsplit(page.url).query, keep_blank_values=True)
    return {name: values[0] for name, values in found.items()}


def wait_for_query(page: Any, **wanted: str) -> None:
    """Wait until the address says so."""
    until = time.monotonic() + 20
    while not wanted.items() <= query_of(page).items():
        assert time.monotonic() < until, (page.url, wanted)
        page.wait_for_timeout(50)
