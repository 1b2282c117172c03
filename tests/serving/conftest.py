"""A service in this process, around a run of two steps."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dist_s2s.distributed import Ranks
from dist_s2s.serving.answers import Answers
from dist_s2s.serving.app import Routes
from dist_s2s.serving.batching import Batcher
from dist_s2s.serving.limits import Limits
from dist_s2s.serving.metrics import Metrics
from dist_s2s.serving.turns import Turns
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.translator import Translator

LIMITS = Limits(max_body=4000, max_sentences=8, max_characters=50, max_beam_size=6, max_waiting=20)


@pytest.fixture(scope="package")
def translator(saved_run: Path) -> Translator:
    return load_translator(saved_run, Ranks.alone())


@pytest.fixture(scope="package")
def client(translator: Translator) -> Iterator[TestClient]:
    metrics = Metrics()
    batcher = Batcher(Turns(Answers(translator), lambda: False), LIMITS, metrics, lambda: None)
    app = Routes(batcher, LIMITS, metrics, {"run": "toy", "ranks": 1}).app(frozenset({"127.0.0.1"}))
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
