"""What tables over frameworks share: files of the small models, and the count of excuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.equal.comparison import Tally
from tests.equal.frameworks.table import Table
from tests.equal.strategies.tiny import CONFIGURATIONS, write_tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> its model's directory."""
    place = tmp_path_factory.mktemp("tiny")
    return {family: write_tiny(family, place / family) for family in CONFIGURATIONS}


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    """Of a whole table: when its last test is done, few of its rows may have had an excuse."""
    whole = Tally()
    yield whole
    whole.settle()


@pytest.fixture(scope="module")
def table(folders: dict[str, Path], tally: Tally) -> Table:
    """Of the small models."""
    return Table(folders, tally)
