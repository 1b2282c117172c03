"""What the whole suite shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.rank_pool import RankPool
from tests.toy_corpus import write_corpus

# The same examples each time, and no deadline: how fast one runs depends on what else the machine does.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPool]:
    """Four real processes joined by gloo; they start with the first call."""
    with RankPool() as pool:
        yield pool


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy corpus as a TSV file, for the tests that run the real commands."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))
