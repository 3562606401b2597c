"""A dashboard over tiny models for every test of the app."""

from collections.abc import Iterator
from typing import Any

import pytest
from tiny_session import Loader, tiny_session

from app.main import create_app
from app.session import Session


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def session(loader: Loader) -> Iterator[Session]:
    session = tiny_session(loader)
    yield session
    session.close()


@pytest.fixture
def client(session: Session) -> Any:
    return create_app(session).server.test_client()
