"""What a report shows of translations: samples and the worst ones with their attention, and errors by length."""

from collections.abc import Sequence

from dist_s2s.analysis.errors import worst
from dist_s2s.analysis.probing import attention_of, find_errors
from dist_s2s.reports.blocks import Bars, Block, Heat, Missing, Section, Sentence, Table
from dist_s2s.translation.scoring import Row, Scorer
from dist_s2s.translation.translator import Translator

_SAMPLES, _WORST = 3, 5
_MOST_WORDS = 60  # of a sentence whose attention is shown
_LONGEST = 2_000  # characters of a text


def sample_section(rows: Sequence[Row] | str, translator: Translator | str) -> Section:
    """Return some translations, evenly spaced among the test data, with what they look at.

    Args:
        rows: of the test data, or why there are none.
        translator: of the run, or why there is none.
    """
    if isinstance(rows, str):
        return Section("samples", "Sample sentences", [Missing(rows)])
    places = [place * len(rows) // _SAMPLES for place in range(min(_SAMPLES, len(rows)))]
    titles = [f"Sentence {place + 1:,}" for place in places]
    return Section("samples", "Sample sentences", _shown([rows[place] for place in places], titles, translator))


def error_section(rows: Sequence[Row] | str, translator: Translator | str) -> Section:
    """Return scores by how long sentences are, and the translations of the lowest chrF; arguments as above."""
    if isinstance(rows, str):
        return Section("errors", "Errors", [Missing(rows)])
    bad = worst(rows, _WORST)
    titles = [f"Sentence {each.number:,}: chrF {each.chrf:.1f}" for each in bad]
    shown = _shown([(each.source, each.reference, each.translation) for each in bad], titles, translator)
    if isinstance(translator, str):
        return Section("errors", "Errors", [Missing(f"errors by length: {translator}"), *shown])
    return Section("errors", "Errors", [*_by_length(rows, translator), *shown])


def _by_length(rows: Sequence[Row], translator: Translator) -> list[Block]:
    """Return a chart and a table."""
    scorer = Scorer(translator.config.training.bleu_tokenizer, [reference for _, reference, _ in rows])
    found = find_errors(rows, translator.source, translator.target, scorer, counts=None)
    lengths, positions = found["by_length"], found["by_position"]
    names = [_range(each["first"], each["last"]) for each in lengths]
    scores = {name: [each[key] for each in lengths] for key, name in (("bleu", "BLEU"), ("chrf", "chrF"))}
    table = [
        [name, f"{each['sentences']:,}", f"{each['bleu']:.2f}", f"{each['chrf']:.2f}", _share(each["length_ratio"])]
        for name, each in zip(names, lengths, strict=True)
    ]
    by_position = [
        [str(each["first"]), *(_share(each[key]) for key in ("recall", "precision", "f1"))] for each in positions
    ]
    return [
        Bars("Scores by how many words the source has", "score", names, scores),
        Table("By length", ("source words", "sentences", "BLEU", "chrF", "length ratio"), table),
        Table("Right words by fifth of the sentence", ("fifth", "recall", "precision", "F1"), by_position),
    ]


def _shown(rows: Sequence[Row], titles: Sequence[str], translator: Translator | str) -> list[Block]:
    """Return the sentences, each with its attention if it can be had, and what cannot be shown."""
    if isinstance(translator, str) or translator.config.model.attention == "none":
        reason = translator if isinstance(translator, str) else "the model has none"
        blocks: list[Block] = [Missing(f"attention: {reason}")]
        return blocks + [Sentence(title, _texts(row)) for title, row in zip(titles, rows, strict=True)]
    # They are translated again, as no file has the tokens of a translation.
    hypotheses = translator.search([source for source, _, _ in rows])
    texts = [translator.target.decode(each.ids) for each in hypotheses]
    again = [(source, reference, text) for (source, reference, _), text in zip(rows, texts, strict=True)]
    looks = attention_of(translator, again, hypotheses)
    shown: list[Block] = []
    for title, row, look in zip(titles, again, looks, strict=True):
        source, target = look["source"], look["target"]
        fits = target and max(len(source), len(target)) <= _MOST_WORDS
        heat = Heat(title, [*target, "(end)"], [*source, "(end)"], look["weights"]) if fits else None
        shown.append(Sentence(title, _texts(row), heat))
    return shown


def _texts(row: Row) -> list[tuple[str, str]]:
    names = ("source", "reference", "translation")
    return [
        (name, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…") for name, text in zip(names, row, strict=True)
    ]


def _range(first: int, last: int | None) -> str:
    return f"{first:,}+" if last is None else f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
