"""What a run takes in memory, measured in a process of its own."""

from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

from common.devices import MIB, resident
from dist_s2s.distributed import joined_ranks
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.search.options import SearchOptions


def memory_of(run_dir: Path, sentences: Sequence[str], beam_size: int) -> dict[str, float]:
    """Return how many MiB a process has more once it has loaded a run, and once it has translated (Linux)."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (run_dir, sentences, beam_size))


def _measure(run_dir: Path, sentences: Sequence[str], beam_size: int) -> dict[str, float]:
    with joined_ranks(1) as ranks:
        before = resident()
        translator = load_translator(run_dir, ranks)
        loaded = resident()
        translator.search(sentences, SearchOptions.of(translator.config, beam_size))
        return {"loaded_mib": (loaded - before) / MIB, "searched_mib": (resident() - before) / MIB}
