"""BLEU and chrF by sacreBLEU, always with the signature that says which BLEU it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from dist_s2s.translation.search_options import SearchOptions
from dist_s2s.translation.translator import Translator

Pairs = Sequence[tuple[str, str]]
Row = tuple[str, str, str]  # source, reference, hypothesis
_GREEDY = SearchOptions()


@dataclass(frozen=True)
class Scores:
    """Corpus scores, 0 … 100, and the sacreBLEU signature of each."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str


def translate_pairs(
    translator: Translator,
    pairs: Pairs,
    options: SearchOptions = _GREEDY,
    after_batch: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Return (source, reference, hypothesis) of each pair, on every rank (collective); see ``Translator.search``.

    References are made ``readable``, as hypotheses are, so that both are in the same Unicode form and in whole words.
    """
    hypotheses = translator.translate([source for source, _ in pairs], options, after_batch)
    readable = translator.target.readable
    return [
        (source, readable(target), hypothesis) for (source, target), hypothesis in zip(pairs, hypotheses, strict=True)
    ]


def bleu_score(rows: Sequence[Row]) -> float:
    """Return corpus BLEU, 0 … 100, of detokenized hypotheses against one reference each."""
    return float(BLEU().corpus_score([row[2] for row in rows], [[row[1] for row in rows]]).score)


def corpus_scores(rows: Sequence[Row]) -> Scores:
    """Return BLEU and chrF of detokenized hypotheses against one reference each."""
    hypotheses, references = [row[2] for row in rows], [[row[1] for row in rows]]
    bleu, chrf = BLEU(), CHRF()
    bleu_value = bleu.corpus_score(hypotheses, references).score
    chrf_value = chrf.corpus_score(hypotheses, references).score
    return Scores(bleu_value, chrf_value, str(bleu.get_signature()), str(chrf.get_signature()))
