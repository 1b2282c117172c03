"""From several runs to a translator that predicts with all of them."""

from collections.abc import Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.text.side import TextSide
from dist_s2s.translation.runs.load import SavedRun, load_saved, read_run_or_checkpoint
from dist_s2s.translation.translator import Translator


def load_members(runs: Sequence[Path], ranks: Ranks) -> Translator:
    """Return the translator of a run, or of an ensemble of several (collective).

    An ensemble takes its limits, such as the longest translation, from its first member.

    Args:
        runs: each a run, or one of its checkpoints; they must have the same vocabularies.

    Raises:
        UserError: on every rank, as ``load_translator``; or vocabularies differ.
    """
    saved = ranks.together(lambda: _read(runs))
    first, *others = [load_saved(run, name, ranks) for run, name in zip(saved, runs, strict=True)]
    first.others = others
    return first


def _read(runs: Sequence[Path]) -> list[SavedRun]:
    """Return the runs; raise UserError for the first whose vocabularies are not those of the first of all."""
    saved = [read_run_or_checkpoint(run) for run in runs]
    expected = saved[0]
    for path, run in zip(runs, saved, strict=True):
        for name, differs in _differences(run, expected):
            if differs is not None:
                raise UserError(
                    f"{path} has another {name} side than {runs[0]}: {differs}; an ensemble needs runs of the same "
                    "vocabularies"
                )
    return saved


def _differences(run: SavedRun, expected: SavedRun) -> list[tuple[str, str | None]]:
    here, there = run.config.data, expected.config.data
    names = (
        ("source", here.source_tokenizer, there.source_tokenizer),
        ("target", here.target_tokenizer, there.target_tokenizer),
    )
    sides = (run.source, expected.source), (run.target, expected.target)
    return [
        (name, f"its tokenizer is {mine}, not {other}" if mine != other else _difference(*both))
        for (name, mine, other), both in zip(names, sides, strict=True)
    ]


def _difference(side: TextSide, expected: TextSide) -> str | None:
    """Return in words how a side differs from another of the same tokenizer; None if ids stand for the same in both."""
    here, there = side.vocabulary.tokens, expected.vocabulary.tokens
    if len(here) != len(there):
        return f"its vocabulary has {len(here):,} tokens, not {len(there):,}"
    for number, (mine, other) in enumerate(zip(here, there, strict=True)):
        if mine != other:
            return f"its token {number:,} is {mine!r}, not {other!r}"
    if side.vocabulary.num_ids != expected.vocabulary.num_ids:
        return f"its vocabulary has room for {side.vocabulary.num_ids:,} tokens, not {expected.vocabulary.num_ids:,}"
    if getattr(side.tokenizer, "model", None) != getattr(expected.tokenizer, "model", None):
        return "its subwords are cut by another model"
    if side.normalization != expected.normalization:
        return f"its Unicode form is {side.normalization}, not {expected.normalization}"
    return None
