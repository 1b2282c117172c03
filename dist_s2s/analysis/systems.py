"""The systems that an evaluation compares, each a run or a file of translations, brought to the same test pairs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dist_s2s import UserError, counted
from dist_s2s.analysis.answers import Answer
from dist_s2s.distributed import Ranks
from dist_s2s.text.side import TextSide
from dist_s2s.translation.runs.load import read_run_or_checkpoint
from dist_s2s.translation.runs.members import load_members
from dist_s2s.translation.scores.forced import Likelihood, encode_pairs, force
from dist_s2s.translation.scores.scoring import Pairs, Row, translate_pairs
from dist_s2s.translation.search_choice import SearchChoice
from dist_s2s.translation.translator import Translator


@dataclass(frozen=True)
class System:
    """What is to be judged.

    Attributes:
        name: what to call it.
        run: that translates, or tells how likely the references are; of several that do so together the first.
        lines: its translations, instead of the run's.
    """

    name: str
    run: Path | None
    lines: Sequence[str] | None


@dataclass(frozen=True)
class Judged:
    """Translations of the test pairs by one system.

    Attributes:
        name: of the system.
        rows: source, reference and translation of each pair.
        likelihood: of the references; None where it is not known.
        about: what else is told of it.
        notes: on what had to be left out.
    """

    name: str
    rows: Sequence[Row]
    likelihood: Likelihood | None
    about: Answer
    notes: Sequence[str]


def check_lines(name: str, lines: Sequence[str], data: str, pairs: Pairs) -> Sequence[str]:
    """Return the lines of a file of translations.

    Raises:
        UserError: there are not as many as pairs.
    """
    if len(lines) != len(pairs):
        raise UserError(
            f"{name} has {counted(len(lines), 'line')}, but {data} has {counted(len(pairs), 'pair')}: each pair needs "
            "a line, which may be empty"
        )
    return lines


def choose_tokenizer(systems: Sequence[System], named: str | None) -> str:
    """Return BLEU's tokenizer: that which is named, or the runs have in common, or that suits the references (auto).

    Raises:
        UserError: the runs' tokenizers differ; or a run is damaged, or there is none.
    """
    runs = [(each.name, read_run_or_checkpoint(each.run)) for each in systems if each.run is not None]
    found = {name: run.config.training.bleu_tokenizer for name, run in runs}
    if named is not None:
        return named
    for name, tokenizer in found.items():
        first, expected = next(iter(found.items()))
        if tokenizer != expected:
            raise UserError(
                f"{name} has BLEU's tokenizer {tokenizer}, but {first} has {expected}: if both translate into the same "
                "language, say which with --bleu_tokenizer"
            )
    return next(iter(found.values()), "auto")


def check_systems(systems: Sequence[System], first: Translator | None, choice: SearchChoice) -> None:
    """Raise UserError, before the work, for a run that cannot be searched so. Calls no collectives.

    Args:
        systems, first, choice: as of ``translate_systems``.
    """
    for place, system in enumerate(systems):
        if system.run is None or system.lines is not None:
            continue
        try:
            if place == 0 and first is not None:
                choice.options(first, *first.others)
            else:
                choice.options(read_run_or_checkpoint(system.run))
        except UserError as error:
            raise UserError(f"{system.name}: {error}" if len(systems) > 1 else str(error)) from None


def translate_systems(
    systems: Sequence[System],
    first: Translator | None,
    side: TextSide,
    pairs: Pairs,
    choice: SearchChoice,
    ranks: Ranks,
) -> list[Judged]:
    """Return what the systems make of the pairs, on every rank (collective).

    Args:
        systems: the first one's references are those of all.
        first: the translator of the first system, if it is a run.
        side: the target side of the first system, or how text is read without one.
        pairs: of text.
        choice: how to search.
        ranks: those that share the tables of the runs.
    """
    references = [side.readable(reference) for _, reference in pairs]
    judged = []
    for place, system in enumerate(systems):
        translator = first
        if place:
            translator = None if system.run is None else load_members([system.run], ranks)
        judged.append(_translate(system, translator, side, pairs, references, choice))
    return judged


def _translate(
    system: System,
    translator: Translator | None,
    side: TextSide,
    pairs: Pairs,
    references: Sequence[str],
    choice: SearchChoice,
) -> Judged:
    """Return one system's part (collective)."""
    lines, about, notes = system.lines, Answer(), list[str]()
    if lines is not None:
        lines = [side.readable(line) for line in lines]
    elif translator is not None:
        options, started = choice.options(translator, *translator.others), time.monotonic()
        found = translate_pairs(translator, pairs, options)
        about["seconds"] = time.monotonic() - started
        about |= {"translations_cut": found.cut, "longest_translation": options.longest}
        if options.sampling is None:
            about |= {"beam_size": options.beam_size, "search": dict(choice.others)}
        else:
            drawn = options.sampling
            about["sampling"] = {**asdict(drawn.options), "seed": drawn.seed, "by_risk": drawn.by_risk}
        lines = [hypothesis for _, _, hypothesis in found.rows]
        if translator.target.normalization != side.normalization:
            notes.append(
                f"{system.name} writes text in the form {translator.target.normalization}, but the references are in "
                f"{side.normalization}"
            )
    assert lines is not None, "a system has a run or lines"
    rows = [(source, *texts) for (source, _), texts in zip(pairs, zip(references, lines, strict=True), strict=True)]
    likelihood = None
    if translator is not None:
        try:
            likelihood = Likelihood.of(force(translator, encode_pairs(translator, pairs)), references)
        except UserError as error:  # the same on every rank
            notes.append(f"the perplexity of {system.name} is left out: {error}")
    return Judged(system.name, rows, likelihood, about, notes)
