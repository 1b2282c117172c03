"""What the whole suite shares."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch.multiprocessing import start_processes

from dist_s2s.cost import ranks as fresh_ranks
from tests.commands import run
from tests.rank_pool import RankPool
from tests.toy_corpus import options, write_corpus

# The same examples each time, and no deadline: how fast one runs depends on what else the machine does.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")
# Test processes and their ranks share the cores; more threads than cores wait for each other.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where tests/sharded/device runs")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda needs a CUDA device, but torch finds none; leave the option out")


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPool]:
    """Four real processes joined by gloo; they start with the first call."""
    with RankPool() as pool:
        yield pool


@pytest.fixture
def forked_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let run_on_ranks fork its processes from the tests' server, since each would import torch first.

    They do not see what the environment has become meanwhile; their stderr is the server's.
    """

    def spawn(function: Callable[..., object], args: tuple[object, ...], nprocs: int) -> None:
        start_processes(function, args, nprocs, start_method="forkserver")

    monkeypatch.setattr(fresh_ranks, "spawn", spawn)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy corpus as a TSV file, for the tests that run the real commands."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps by two ranks in round-robin layout, with two checkpoints, for tests that only read it."""
    run_dir = tmp_path_factory.mktemp("saved") / "run"
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"))
    limits = {"training__max_steps": 2, "training__checkpoint_every": 1}
    settings = options(corpus, run_dir, embedding__layout="round_robin", **limits)
    run("dist_s2s.train", *settings, ranks=2)
    return run_dir
