"""Systems judged by the same test pairs, and compared with the first of them, as plain values for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sacrebleu.metrics.chrf import CHRF

from dist_s2s.analysis.answers import Answer
from dist_s2s.analysis.errors import LENGTHS, Cut, by_frequency, by_length, limits_of, range_of
from dist_s2s.analysis.probing import as_answers, cutter
from dist_s2s.analysis.systems import Judged
from dist_s2s.analysis.training_counts import word_counts_or_note
from dist_s2s.config import Config
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.translation.scores.forced import Likelihood
from dist_s2s.translation.scores.scoring import TER_LEFT_OUT, Row, Scorer
from dist_s2s.translation.scores.significance import MetricScores, compare, resamples_of


def plain_side() -> TextSide:
    """Return how text is read where no run says it: in NFC, its words as those of data.target_tokenizer words."""
    return TextSide(make_tokenizer("words"), Vocabulary(SPECIALS))


def evaluate(
    systems: Sequence[Judged],
    scorer: Scorer,
    source: TextSide,
    target: TextSide,
    trained: tuple[Path, Config] | None,
    examples: int,
) -> Answer:
    """Return what there is to tell of each system: those after the first one are compared with it.

    Args:
        systems: of the same sources and references.
        scorer: for all of them.
        source, target: how text is cut into words.
        trained: the run whose training data tell how frequent words are, if there is one.
        examples: sentences to show that a system translates much better than the first one, and much worse.

    Raises:
        UserError: BLEU's tokenizer is not installed.
    """
    found = compare([(each.name, each.rows) for each in systems], scorer, with_ter=True)
    cut_source, cut_target = cutter(source), cutter(target)
    counts, notes = (None, []) if trained is None else word_counts_or_note(*trained, target)
    answers = []
    for place, system in enumerate(systems):
        answers.append(
            {
                "system": system.name,
                **_scores(found, place),
                "perplexity": None if system.likelihood is None else _perplexity(system.likelihood),
                "lengths": _lengths(system.rows, scorer),
                **system.about,
                "by_length": [asdict(each) for each in by_length(system.rows, cut_source, cut_target, scorer)],
                "by_frequency": None if counts is None else as_answers(by_frequency(system.rows, cut_target, counts)),
            }
        )
    first, *others = answers
    bootstrap: Answer = {"level": 0.95, "resamples": resamples_of(len(systems[0].rows))}
    bootstrap |= {f"{each.metric.lower()}_signature": each.bootstrap for each in found}
    for answer, system in zip(others, systems[1:], strict=True):
        answer |= compare_sentences(systems[0].rows, system.rows, cut_source, examples)
    notes += [note for system in systems for note in system.notes]
    return {**first, "bootstrap": bootstrap, "compared": others, "notes": [*notes, *_on_unknown(systems)]}


def compare_sentences(rows: Sequence[Row], others: Sequence[Row], cut_source: Cut, examples: int) -> Answer:
    """Return which of two systems has the higher chrF, by the length of the source, and where they differ most.

    Args:
        rows: of the first system.
        others: of the second one, of which is told whether it is better or worse.
        cut_source: into words.
        examples: sentences to show, of either kind.
    """
    chrf = CHRF()
    differences = []
    wins: dict[int, list[int]] = {}
    for number, ((source, reference, mine), (_, _, other)) in enumerate(zip(rows, others, strict=True), 1):
        scores = [chrf.sentence_score(text, [reference]).score for text in (mine, other)]
        difference = scores[1] - scores[0]
        counts = wins.setdefault(range_of(len(cut_source(source)), LENGTHS), [0, 0, 0])
        counts[(difference > 0) - (difference < 0)] += 1  # equal, better, worse: 0, 1, -1
        differences.append((difference, number, scores, source, reference, mine, other))
    by_range = []
    for place, (equal, better, worse) in sorted(wins.items()):
        first, last = limits_of(place, LENGTHS)
        by_range.append({"first": first, "last": last, "better": better, "equal": equal, "worse": worse})
    ranked = sorted(differences, key=lambda each: each[0])
    worst = [each for each in ranked[:examples] if each[0] < 0]
    best = [each for each in ranked[::-1][:examples] if each[0] > 0]
    keys = ("source", "reference", "first", "other")
    return {
        "wins": by_range,
        "most_different": [
            {"number": number, "first_chrf": scores[0], "other_chrf": scores[1], **dict(zip(keys, texts, strict=True))}
            for _, number, scores, *texts in [*best, *worst]
        ],
    }


def _scores(found: Sequence[MetricScores], place: int) -> Answer:
    """Return the scores of one system, with half of the 95 % interval and p where there are some."""
    answer: Answer = {}
    for each in found:
        key, system = each.metric.lower(), each.systems[place]
        answer |= {key: system.score, f"{key}_interval": system.interval, f"{key}_p": system.p}
        answer["signature" if key == "bleu" else f"{key}_signature"] = each.signature
    if "ter" not in answer:
        answer |= {"ter": None, "ter_interval": None, "ter_p": None, "ter_signature": TER_LEFT_OUT}
    return answer


def _perplexity(likelihood: Likelihood) -> Answer:
    return {
        **asdict(likelihood),
        "per_token": likelihood.perplexity,
        "per_character": likelihood.character_perplexity,
    }


def _on_unknown(systems: Sequence[Judged]) -> list[str]:
    """Return notes where unknown words in the references make perplexities, or whole systems, unfit to be compared."""
    found = [(each.name, each.likelihood) for each in systems if each.likelihood is not None]
    notes = [
        f"most tokens of the references are unknown to {name}: does it translate into their language?"
        for name, each in found
        if 2 * each.unknown_tokens > each.tokens
    ]
    unknown = [f"{each.unknown_tokens:,} of {each.tokens:,} for {name}" for name, each in found if each.unknown_tokens]
    if len(found) > 1 and unknown:
        notes.append(
            f"tokens of the references are unknown ({', '.join(unknown)}), and count as the one token for unknown "
            "words, which is easily guessed: perplexities with and without them do not compare"
        )
    return notes


def _lengths(rows: Sequence[Row], scorer: Scorer) -> Answer:
    """Return lengths in BLEU's tokens and in characters."""
    bleu = scorer.bleu.corpus_score([row[2] for row in rows], [[row[1] for row in rows]])
    return {
        "translations": int(bleu.sys_len),
        "references": int(bleu.ref_len),
        "ratio": bleu.sys_len / bleu.ref_len if bleu.ref_len else None,
        "brevity_penalty": float(bleu.bp),
        "characters_of_translations": sum(len(row[2]) for row in rows),
        "characters_of_references": sum(len(row[1]) for row in rows),
    }
