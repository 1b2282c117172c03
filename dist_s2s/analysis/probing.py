"""What there is to see of a translator at work, as plain values for JSON; pictures are drawn from these elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

from dist_s2s import counted
from dist_s2s.analysis.answers import Answer
from dist_s2s.analysis.errors import Cut, WordErrors, by_frequency, by_length, by_position, worst
from dist_s2s.analysis.training_counts import word_counts_or_note
from dist_s2s.models import Hypothesis
from dist_s2s.text.side import TextSide
from dist_s2s.text.whole_words import words_of
from dist_s2s.translation.attention import Floats, Pooling, look, pharaoh, sentence_vectors
from dist_s2s.translation.scores.scoring import Pairs, Row, Scorer
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator

ProbedRow = tuple[str, str | None, str]  # source, reference if there is one, translation


def find_errors(
    rows: Sequence[Row], source: TextSide, target: TextSide, scorer: Scorer, counts: Mapping[str, int] | None
) -> Answer:
    """Return scores of the rows, and where errors are; ``by_frequency`` is None without counts.

    Args:
        rows: source, reference and translation of each pair.
        counts: from ``word_counts``.
    """
    cut_source, cut_target = cutter(source), cutter(target)
    lengths = by_length(rows, cut_source, cut_target, scorer)
    return {
        "sentences": len(rows),
        "scores": scorer.scores(rows),
        "by_length": [asdict(each) for each in lengths],
        "by_frequency": None if counts is None else as_answers(by_frequency(rows, cut_target, counts)),
        "by_position": as_answers(by_position(rows, cut_target)),
    }


def attention_of(translator: Translator, rows: Sequence[ProbedRow], found: Sequence[Hypothesis]) -> list[Answer]:
    """Return what each word of some translations looks at, on every rank (collective); see ``look``.

    Args:
        rows: source, reference if there is one, and translation of each sentence.
        found: the hypotheses of these translations.
    """
    looks = look(translator, [source for source, _, _ in rows], found)
    return [
        {
            "sentence": source,
            "reference": reference,
            "translation": translation,
            "source": each.source,
            "target": each.target,
            "weights": each.weights.tolist(),
            "alignment": pharaoh(each.alignment),
        }
        for (source, reference, translation), each in zip(rows, looks, strict=True)
    ]


@dataclass(frozen=True)
class Probe:
    """What ``probe`` finds.

    Attributes:
        answer: plain values for JSON: ``errors`` and ``worst`` of the pairs, None without any; ``attention`` of the
            sentences and the worst pairs; ``notes`` on what had to be left out.
        vectors: of the pairs' sources and then of the sentences, by pooling: [N, hidden_size] each.
    """

    answer: Answer
    rows: list[ProbedRow]
    vectors: dict[Pooling, Floats]


def probe(
    run_dir: Path, translator: Translator, pairs: Pairs, sentences: Sequence[str], options: SearchOptions, number: int
) -> Probe:
    """Translate pairs and sentences, and look at what comes of them, on every rank (collective).

    Args:
        run_dir: the translator's.
        translator: at rest.
        pairs: to be judged by their references; may be none.
        sentences: to look at besides.
        options: how to search.
        number: of the worst pairs to look at.

    Raises:
        UserError: on every rank, if BLEU's tokenizer is not installed.
    """
    ranks, readable = translator.ranks, translator.target.readable
    sources = [*(source for source, _ in pairs), *sentences]
    found = translator.translate(sources, options)
    # A sentence that is translated in pieces has no heat map: each piece looks at itself alone.
    hypotheses = [each.in_one_piece or Hypothesis([], 0.0) for each in found]
    references = [*(readable(target) for _, target in pairs), *(None for _ in sentences)]
    texts = [each.text for each in found]
    rows = list(zip(sources, references, texts, strict=True))
    answer: Answer = {"errors": None, "worst": [], "attention": [], "notes": []}
    if pairs:
        judged = [(source, reference or "", text) for source, reference, text in rows[: len(pairs)]]
        answer |= ranks.on_first(lambda: _judge(run_dir, translator, judged, number))
    chosen = [*range(len(pairs), len(rows)), *(bad["number"] - 1 for bad in answer["worst"])]
    if translator.config.model.attention == "none":
        answer["notes"].append("the model has no attention, so there are no heat maps and no alignments")
    else:
        answer["attention"] = attention_of(
            translator, [rows[place] for place in chosen], [hypotheses[place] for place in chosen]
        )
        long = sum(bool(each["translation"]) and not each["target"] for each in answer["attention"])
        if long:
            answer["notes"].append(
                f"{counted(long, 'sentence is', 'sentences are')} too long for heat maps and alignments"
            )
    poolings: tuple[Pooling, ...] = ("mean", "last")
    return Probe(answer, rows, {pooling: sentence_vectors(translator, sources, pooling) for pooling in poolings})


def _judge(run_dir: Path, translator: Translator, rows: list[Row], number: int) -> Answer:
    """Return the errors and the worst of the rows, and a note if words could not be counted."""
    config, source, target = translator.config, translator.source, translator.target
    counts, notes = word_counts_or_note(run_dir, config, target)
    scorer = Scorer(config.training.bleu_tokenizer, [reference for _, reference, _ in rows])
    return {
        "errors": find_errors(rows, source, target, scorer, counts),
        "worst": [asdict(bad) for bad in worst(rows, number)],
        "notes": notes,
    }


def cutter(side: TextSide) -> Cut:
    """Return how a side's text is cut into words, remembered, as the same sentences are cut again and again."""
    return cache(partial(words_of, side=side))


def as_answers(errors: Sequence[WordErrors]) -> list[Answer]:
    """Return the errors of words as plain values for JSON."""
    return [{**asdict(each), "f1": each.f1} for each in errors]
