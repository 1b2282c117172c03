"""What a report shows of translations: samples and the worst ones with their attention, and where errors are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dist_s2s import UserError
from dist_s2s.analysis.errors import worst
from dist_s2s.analysis.probe_tables import share_in_words
from dist_s2s.analysis.probing import attention_of, find_errors
from dist_s2s.analysis.training_counts import word_counts
from dist_s2s.models import Hypothesis
from dist_s2s.reports.about import is_large
from dist_s2s.reports.blocks import Bars, Block, Heat, Missing, Section, Sentence, Table
from dist_s2s.translation.scores.scoring import Row, Scorer
from dist_s2s.translation.translator import Translator

_SAMPLES, _WORST = 3, 5
_MOST_WORDS = 60  # of a sentence whose attention is shown
_LONGEST = 2_000  # characters of a text
_JUDGED = ("recall", "precision", "f1")


class Chosen(NamedTuple):
    """A translation to show."""

    title: str
    source: str
    reference: str
    translation: str


def choose(rows: Sequence[Row] | str) -> tuple[list[Chosen], list[Chosen]]:
    """Return some translations, evenly spaced among the test data, and those of the lowest chrF.

    Args:
        rows: of the test data, or why there are none.
    """
    if isinstance(rows, str):
        return [], []
    places = [place * len(rows) // _SAMPLES for place in range(min(_SAMPLES, len(rows)))]
    return (
        [Chosen(f"Sentence {place + 1:,}", *rows[place]) for place in places],
        [
            Chosen(f"Sentence {bad.number:,}: chrF {bad.chrf:.1f}", bad.source, bad.reference, bad.translation)
            for bad in worst(rows, _WORST)
        ],
    )


def shown(chosen: Sequence[Chosen], translator: Translator | str) -> list[Block]:
    """Return sentences, each with its attention if it can be had, and what cannot be shown (collective).

    Args:
        chosen: the same on all ranks.
        translator: of the run, or why there is none.
    """
    if not chosen:
        return []
    if isinstance(translator, str) or translator.config.model.attention == "none":
        reason = translator if isinstance(translator, str) else "the model has none"
        return [Missing(f"attention: {reason}"), *(Sentence(each.title, _texts(each[1:])) for each in chosen)]
    # They are translated again, as no file has the tokens of a translation.
    found = translator.translate([each.source for each in chosen])
    hypotheses = [each.in_one_piece or Hypothesis([], 0.0) for each in found]
    again = [(each.source, each.reference, of_it.text) for each, of_it in zip(chosen, found, strict=True)]
    looks = attention_of(translator, again, hypotheses)
    blocks: list[Block] = []
    for each, row, look in zip(chosen, again, looks, strict=True):
        source, target = look["source"], look["target"]
        fits = target and max(len(source), len(target)) <= _MOST_WORDS
        heat = Heat(each.title, [*target, "(end)"], [*source, "(end)"], look["weights"]) if fits else None
        blocks.append(Sentence(each.title, _texts(row), heat))
    return blocks


def sample_section(rows: Sequence[Row] | str, samples: Sequence[Block]) -> Section:
    """Return the samples, or why there are no ``rows``."""
    return Section("samples", "Sample sentences", [Missing(rows)] if isinstance(rows, str) else samples)


def error_section(
    rows: Sequence[Row] | str, bad: Sequence[Block], translator: Translator | str, run_dir: Path
) -> Section:
    """Return where errors are, by length, frequency and position, and the worst sentences. Calls no collectives.

    Args:
        rows: of the test data, or why there are none.
        bad: the worst sentences.
        translator: of the run, or why there is none.
        run_dir: of the run, which knows its training data.
    """
    if isinstance(rows, str):
        blocks: list[Block] = [Missing(rows)]
    elif isinstance(translator, str):
        blocks = [Missing(f"errors by length, frequency and position: {translator}")]
    else:
        blocks = _errors(rows, translator, run_dir)
    return Section("errors", "Errors", [*blocks, *bad])


def _errors(rows: Sequence[Row], translator: Translator, run_dir: Path) -> list[Block]:
    """Return charts and tables of scores by length, and of right words by frequency and position."""
    counts = _counts(translator, run_dir)
    scorer = Scorer(translator.config.training.bleu_tokenizer, [reference for _, reference, _ in rows])
    known = None if isinstance(counts, str) else counts
    found = find_errors(rows, translator.source, translator.target, scorer, known)
    by_position = [[str(each["first"]), *_shares(each)] for each in found["by_position"]]
    return [
        *_by_length(found["by_length"]),
        *(
            [Missing(f"errors by frequency: {counts}")]
            if isinstance(counts, str)
            else _by_frequency(found["by_frequency"])
        ),
        Table("Right words by fifth of the sentence", ("fifth", "recall", "precision", "F1"), by_position),
    ]


def _counts(translator: Translator, run_dir: Path) -> Mapping[str, int] | str:
    """Return how often words stand in the training data, or why that is not known."""
    data = translator.config.data
    try:
        large = [name for name in (data.train, data.mix) if name is not None and is_large(name, data.columns)]
        if large:
            return f"{large[0]} is too large to count its words for a report; probe does it"
        return word_counts(run_dir, translator.config, translator.target)
    except (UserError, OSError) as error:
        return str(error)


def _by_length(lengths: Sequence[Mapping[str, Any]]) -> list[Block]:
    names = [_range(each) for each in lengths]
    scores = {name: [each[key] for each in lengths] for key, name in (("bleu", "BLEU"), ("chrf", "chrF"))}
    table = [
        [
            name,
            f"{each['sentences']:,}",
            f"{each['bleu']:.2f}",
            f"{each['chrf']:.2f}",
            share_in_words(each["length_ratio"]),
        ]
        for name, each in zip(names, lengths, strict=True)
    ]
    return [
        Bars("Scores by how many words the source has", "score", names, scores),
        Table("By length", ("source words", "sentences", "BLEU", "chrF", "length ratio"), table),
    ]


def _by_frequency(frequencies: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return a chart and a table, without ranges in which there is no word."""
    there = [each for each in frequencies if each["expected"] or each["written"]]
    names = [_range(each) for each in there]
    table = [
        [name, f"{each['expected']:,}", f"{each['written']:,}", *_shares(each)]
        for name, each in zip(names, there, strict=True)
    ]
    headings = ("times in training", "in references", "in translations", "recall", "precision", "F1")
    title = "Right words by how often the training data have them"
    return [Bars(title, "F1", names, {"F1": [each["f1"] for each in there]}), Table("By frequency", headings, table)]


def _texts(row: Sequence[str]) -> list[tuple[str, str]]:
    names = ("source", "reference", "translation")
    return [
        (name, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…") for name, text in zip(names, row, strict=True)
    ]


def _range(limits: Mapping[str, Any]) -> str:
    first, last = limits["first"], limits["last"]
    return f"{first:,}+" if last is None else f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _shares(judged: Mapping[str, Any]) -> list[str]:
    return [share_in_words(judged[key]) for key in _JUDGED]
