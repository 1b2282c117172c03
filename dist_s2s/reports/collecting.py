"""Everything that a report shows of a run, read and computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dist_s2s import UserError
from dist_s2s.config import load_config
from dist_s2s.distributed import Ranks
from dist_s2s.reports.about import card_section, commands_section, configuration_section, data_section
from dist_s2s.reports.blocks import Block, Report, Section, Table
from dist_s2s.reports.course import balance_section, time_section, training_section
from dist_s2s.reports.history import RunHistory
from dist_s2s.reports.scores import read_summary, read_translations, scores_section
from dist_s2s.reports.sentences import Chosen, choose, error_section, sample_section, shown
from dist_s2s.reports.watching import state_of
from dist_s2s.reports.word_sections import evolution_section, words_section
from dist_s2s.storage.run_directory import CONFIG
from dist_s2s.storage.run_files import check_run
from dist_s2s.translation.runs.load import best_checkpoint, load_translator
from dist_s2s.translation.scores.scoring import Row
from dist_s2s.translation.scores.significance import System
from dist_s2s.translation.translator import Translator

T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """What is shown of a run's model: its words, and sentences with what it looks at."""

    words: Section
    samples: Sequence[Block]
    worst: Sequence[Block]


def collect(run_dir: Path, others: Sequence[Path], words: Sequence[str], ranks: Ranks) -> Report:
    """Return what there is to show of a run; a section says what it lacks.

    Args:
        run_dir: of the run.
        others: runs whose translations of the same test data are compared.
        words: whose similarities are shown; none for frequent ones.
        ranks: this process alone.

    Raises:
        UserError: there is no run, it is damaged, another one cannot be compared, or a word is unknown to both sides.
    """
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"{run_dir} is not a run directory: it has no {CONFIG}")
    check_run(run_dir)
    compared = [(str(other), read_translations(other)) for other in others]
    rows = _or_reason(lambda: read_translations(run_dir))
    translator = _or_reason(lambda: load_translator(run_dir, ranks))
    seen = see(translator, choose(rows), best_checkpoint(run_dir), words)
    return assemble(run_dir, compared, rows, translator, seen)


def see(
    translator: Translator | str,
    chosen: tuple[list[Chosen], list[Chosen]],
    checkpoint: Path | None,
    words: Sequence[str],
) -> Seen:
    """Return what is shown of a translator (collective).

    Args:
        translator: of the run, or why there is none.
        chosen: samples and worst sentences, the same on all ranks.
        checkpoint: that the translator's weights are of; None if there is none.
        words: to compare; none for frequent ones.

    Raises:
        UserError: on every rank, if neither side knows a word.
    """
    samples, worst = (shown(some, translator) for some in chosen)
    return Seen(words_section(translator, checkpoint, words), samples, worst)


def assemble(
    run_dir: Path, others: Sequence[System], rows: Sequence[Row] | str, translator: Translator | str, seen: Seen
) -> Report:
    """Return the report of a run. Calls no collectives.

    Args:
        run_dir: of the run.
        others: runs that are compared.
        rows: the translations of the test data, or why there are none.
        translator: of the run, or why there is none.
        seen: of that translator.

    Raises:
        UserError: the run is damaged, or another one cannot be compared.
    """
    data, config = check_run(run_dir), load_config(run_dir / CONFIG, {})
    state, summary = state_of(run_dir), read_summary(run_dir)
    history = RunHistory(run_dir, recent=None)
    history.read()
    run = rows if isinstance(rows, str) else (str(run_dir), rows)
    scores = scores_section(run, summary, others, config.training.bleu_tokenizer)
    world_size = summary.get("world_size")
    compared = [Path(name) for name, _ in others]
    sections = [
        scores,
        training_section(history),
        time_section(history),
        balance_section(history),
        seen.words,
        evolution_section(run_dir),
        sample_section(rows, seen.samples),
        error_section(rows, seen.worst, translator, run_dir),
        data_section(config, data, translator),
        configuration_section(config),
        commands_section(run_dir, compared, config, world_size if isinstance(world_size, int) else None),
        card_section(config, summary, translator, _in_words(scores)),
    ]
    return Report(run_dir.name or str(run_dir), f"{run_dir} · {state}", sections)


def _or_reason(make: Callable[[], T]) -> T | str:
    """Return what is made, or why it cannot be."""
    try:
        return make()
    except UserError as error:
        return str(error)


def _in_words(scores: Section) -> list[str]:
    """Return the run's own scores, which are the first row of the first table."""
    table = next((block for block in scores.blocks if isinstance(block, Table)), None)
    if table is None:
        return []
    cells = zip(table.headings[1:], table.rows[0][1:], strict=True)
    return [f"{heading} {cell}" for heading, cell in cells if cell]
