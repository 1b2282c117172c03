"""Scores of one or more systems on the same sentences, with intervals and p-values of sacreBLEU's bootstrap.

Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, Result

from dist_s2s import UserError
from dist_s2s.translation.scores.scoring import Row, Scorer

_RESAMPLES, _FEWEST = 1000, 100
_RESAMPLED = 4_000_000  # sentences in all resamples, which sacreBLEU has in memory at once
System = tuple[str, Sequence[Row]]  # a name, and translations


@dataclass(frozen=True)
class SystemScore:
    """A score, 0 … 100 (TER: or more).

    Attributes:
        score: of the sentences as they are.
        interval: half of the 95 % interval; None where nothing was resampled.
        p: how likely a difference from the first system as large as this one would be, if there were none; None for the
            first one, and where nothing was resampled.
    """

    score: float
    interval: float | None
    p: float | None


@dataclass(frozen=True)
class MetricScores:
    """The scores of all systems by one metric.

    Attributes:
        metric: BLEU, chrF or TER.
        signature: sacreBLEU's, which says which one it is.
        bootstrap: the same with the seed and the number of resamples; empty where nothing was resampled.
        systems: the score of each.
    """

    metric: str
    signature: str
    bootstrap: str
    systems: list[SystemScore]


def check_same_pairs(systems: Sequence[System]) -> None:
    """Raise UserError unless all systems have the sentences and references of the first one."""
    name, rows = systems[0]
    for other, some in systems[1:]:
        if [row[:2] for row in rows] != [row[:2] for row in some]:
            raise UserError(
                f"{other} cannot be compared with {name}: their translations are of other sentences or references; "
                "compare runs that have the same test data"
            )


def resamples_of(sentences: int) -> int:
    """Return how often so many sentences are resampled: 1,000 times, fewer if they are many, and 0 if too many."""
    resamples = min(_RESAMPLES, _RESAMPLED // max(1, sentences))
    return resamples if resamples >= _FEWEST else 0


def compare(systems: Sequence[System], scorer: Scorer, *, with_ter: bool = False) -> list[MetricScores]:
    """Return BLEU, chrF and, if asked for and not too long, TER of systems, the first of which is the baseline.

    Intervals and p-values come from the same resamples for all systems, with sacreBLEU's fixed seed. Calls no
    collectives.

    Raises:
        UserError: BLEU's tokenizer is not installed here.
    """
    found = [_scores(systems, scorer.bleu, str, ""), _scores(systems, CHRF(), str, "")]
    if with_ter and scorer.can_ter(rows for _, rows in systems):
        found.append(_scores(systems, scorer.ter, scorer.cut_for_ter, scorer.ter_suffix))
    return found


def _scores(systems: Sequence[System], metric: Metric, cut: Callable[[str], str], suffix: str) -> MetricScores:
    references = [[cut(reference) for _, reference, _ in systems[0][1]]]
    hypotheses: list[Sequence[str]] = [[cut(row[2]) for row in rows] for _, rows in systems]
    resamples = resamples_of(len(references[0]))
    if not resamples:
        scores = [metric.corpus_score(each, references) for each in hypotheses]
        plain = [SystemScore(float(each.score), None, None) for each in scores]
        return MetricScores(_title(scores[0].name), f"{metric.get_signature()}{suffix}", "", plain)
    named = [(name, each) for (name, _), each in zip(systems, hypotheses, strict=True)]
    signatures, answers = PairedTest(named, {"": metric}, references, "bs", n_samples=resamples)()
    [(name, signature)] = signatures.items()
    results = cast(list[Result], answers[name])  # beside them there are the systems' names
    return MetricScores(
        _title(name),
        f"{metric.get_signature()}{suffix}",
        f"{signature}{suffix}",
        [_system_score(result, results[0]) for result in results],
    )


def _system_score(result: Result, baseline: Result) -> SystemScore:
    """Return a score with its p; that of no difference is 1, for which sacreBLEU has its least one."""
    p = 1.0 if result.score == baseline.score else result.p_value
    interval = None if result.ci is None else float(result.ci)
    return SystemScore(float(result.score), interval, None if result is baseline or p is None else float(p))


def _title(name: str) -> str:
    """Return the metric's name without chrF's order of n-grams, which its signature has."""
    return "chrF" if name.startswith("chrF") else name
