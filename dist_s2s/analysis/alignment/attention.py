"""A dictionary from what a translator looks at, without any dictionary."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from dist_s2s import counted
from dist_s2s.analysis.training_counts import training_pairs
from dist_s2s.distributed import Ranks
from dist_s2s.text.corpus import load_pairs
from dist_s2s.translation.attention import count_alignments
from dist_s2s.translation.runs.load import load_translator

_MOST_SENTENCES = 50_000
_LEAST_COUNT = 2  # what a model looked at once may be chance
WordPairs = dict[tuple[str, str], float]


def attended_words(
    run_dir: Path, parallel: str | None, columns: str | None, ranks: Ranks, say: Callable[[str], None]
) -> WordPairs:
    """Return how closely a translator's attention ties words to each other (collective).

    The translator reads sentences and their references. Each word of a reference counts once with the source word that
    it looks at most. The score of two words is Dice's coefficient, 2 c(s, t) / (c(s) + c(t)), as in Melamed 2000.

    Args:
        run_dir: a run that has attention.
        parallel: pairs of sentences, as `evaluate` reads them; None: those that the run was trained on. If they are
            more than 50,000, that many of them, evenly spaced.
        columns: which of an input's columns, keys or languages are source and target; None: as the input tells.
        say: shows the user how it goes.

    Raises:
        UserError: on every rank, if there is no such run, it has no attention, or the sentences are not there.
    """
    translator = load_translator(run_dir, ranks)

    def read() -> list[tuple[str, str]]:
        return load_pairs(parallel, "test", columns) if parallel else training_pairs(run_dir, translator.config)

    pairs = ranks.together(read)
    count = min(len(pairs), _MOST_SENTENCES)
    pairs = [pairs[number * len(pairs) // count] for number in range(count)]
    say(f"the translator of {run_dir} looks at the words of {counted(count, 'sentence')}")
    found = dice(count_alignments(translator, pairs))
    say(f"{counted(len(found), 'pair of words was', 'pairs of words were')} looked at more than once")
    return found


def dice(counts: Counter[tuple[str, str]]) -> WordPairs:
    """Return the coefficient of each pair of words that has been counted more than once."""
    sources, targets = Counter[str](), Counter[str]()
    for (source, target), count in counts.items():
        sources[source] += count
        targets[target] += count
    return {
        (source, target): 2 * count / (sources[source] + targets[target])
        for (source, target), count in sorted(counts.items())
        if count >= _LEAST_COUNT
    }


def mutual_best(scores: WordPairs) -> list[tuple[str, str]]:
    """Return the pairs of words of which each is the other's best."""
    to_target, to_source = _best(scores), _best({(t, s): score for (s, t), score in scores.items()})
    return [(source, target) for source, target in to_target.items() if to_source[target] == source]


def _best(scores: WordPairs) -> dict[str, str]:
    """Return the best second word of each first one; of equal ones that which comes first."""
    best = dict[str, tuple[float, str]]()
    for (one, other), score in scores.items():
        if one not in best or score > best[one][0]:
            best[one] = (score, other)
    return {one: other for one, (_, other) in best.items()}


def ranks_by(scores: WordPairs, wanted: Iterable[tuple[str, str]], candidates: int) -> list[int]:
    """Return for each source word the rank of the best of its translations by score; the last one if none is scored.

    Args:
        wanted: source words with their translations.
        candidates: how many words can be translations.
    """
    translations, of_source = dict[str, set[str]](), dict[str, list[tuple[float, str]]]()
    for source, target in wanted:
        translations.setdefault(source, set()).add(target)
    for (source, target), score in scores.items():
        if source in translations:
            of_source.setdefault(source, []).append((-score, target))
    return [
        next((rank for rank, (_, word) in enumerate(sorted(of_source.get(source, [])), 1) if word in right), candidates)
        for source, right in translations.items()
    ]
