"""Which pairs of words a mapping is learnt from, and which test it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dist_s2s import UserError, counted
from dist_s2s.analysis.alignment.attention import WordPairs, mutual_best
from dist_s2s.analysis.alignment.dictionary import Entry, Pairs, check_columns, find_pairs, hold_out, read_dictionary
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.distributed import Ranks

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to learn a mapping from: a dictionary, a saved mapping, or else a start without either.

    Attributes:
        dictionary: file of pairs to learn from, of which a share is held out unless there is a test file.
        attention: run whose attention gives the pairs to learn from.
        parallel: sentences that this run reads for it; None: those that it was trained on.
        columns: which of their columns, keys or languages are source and target; None: as they tell.
        test: file of pairs to test with.
        test_share: of the dictionary's source words.
        start: of self-learning: "structure", "identical" or "frequency".
        mapping: file that `align` has saved.
        refine: rounds after the dictionary, or the pairs of the attention.
        learning_words: most frequent words that refinement and self-learning choose pairs from.
        patience: of self-learning.
        seed: of the split, the bootstrap, and self-learning.
    """

    dictionary: str | None = None
    attention: Path | None = None
    parallel: str | None = None
    columns: str | None = None
    test: str | None = None
    test_share: float = 0.2
    start: str = "structure"
    mapping: Path | None = None
    refine: int = 5
    learning_words: int = 10_000
    patience: int = 50
    seed: int = 0


def read_dictionaries(source: WordVectors, target: WordVectors, settings: Settings) -> dict[str, list[Entry]]:
    """Return the entries of the dictionary and the test, by their paths; UserError if their columns are swapped."""
    files = {path: read_dictionary(path) for path in (settings.dictionary, settings.test) if path is not None}
    for path, entries in files.items():
        check_columns(path, entries, source.ids, target.ids)
    return files


def with_pieces(side: WordVectors, words: list[str], ranks: Ranks, say: Say) -> WordVectors:
    """Return the vectors, also of words that are several subwords (collective)."""
    found = side.with_words(words, ranks)
    for word in list(found.pieces.values())[:1]:
        say(
            f"{side.name}: {counted(len(found.pieces), 'word is', 'words are')} several pieces, whose mean stands for "
            f"each, as {' '.join(word.tokens)} for {word.text}"
        )
    return found


def choose_pairs(
    source: WordVectors,
    target: WordVectors,
    entries: dict[str, list[Entry]],
    attended: WordPairs,
    settings: Settings,
    say: Say,
) -> tuple[Pairs, Pairs]:
    """Return the pairs to learn from and those to test with (local).

    Args:
        entries: of ``read_dictionaries``.
        attended: of ``attended_words``, if a run's attention is learnt from.

    Raises:
        UserError: a dictionary has no known pair, or none is left to learn from; the attention has none.
    """
    pairs, test = list[tuple[int, int]](), list[tuple[int, int]]()
    if settings.dictionary is not None:
        found = find_pairs(settings.dictionary, entries[settings.dictionary], source.ids, target.ids)
        say(found.description)
        pairs = found.pairs
    if settings.attention is not None:
        pairs = _known(mutual_best(attended), source, target, settings.attention)
    if settings.test is not None:
        found = find_pairs(settings.test, entries[settings.test], source.ids, target.ids)
        say(found.description)
        test = found.pairs
        if settings.dictionary is not None:  # the attention knows no dictionary, so its pairs may be tested
            pairs = _without_tested(pairs, test, say)
    elif settings.dictionary is not None:
        pairs, test = hold_out(pairs, settings.test_share, settings.seed)
        if settings.test_share > 0 and not test:
            say(
                f"warning: no word is left to test with: {settings.test_share:g} of the dictionary's "
                f"{len({word for word, _ in pairs}):,} source words is less than one; raise --test_share or give --test"
            )
    if settings.dictionary is not None and not pairs:
        raise UserError(f"{settings.dictionary}: no pair is left to learn from, since all words are tested")
    if 0 < len(pairs) < source.rows.dim:
        say(
            f"warning: {counted(len(pairs), 'pair does', 'pairs do')} not determine a rotation of "
            f"{counted(source.rows.dim, 'dimension')}"
        )
    return pairs, test


def _without_tested(pairs: Pairs, test: Pairs, say: Say) -> Pairs:
    """Return the pairs of a dictionary without those of a source word that is tested."""
    tested = {word for word, _ in test}
    kept = [pair for pair in pairs if pair[0] not in tested]
    if len(kept) < len(pairs):
        one, many = "pair of the dictionary has", "pairs of the dictionary have"
        say(f"{counted(len(pairs) - len(kept), one, many)} a word of the test: left out")
    return kept


def _known(words: list[tuple[str, str]], source: WordVectors, target: WordVectors, run: Path) -> Pairs:
    """Return the ids of pairs of words that have vectors."""
    pairs = [(source.ids[a], target.ids[b]) for a, b in words if a in source.ids and b in target.ids]
    if not pairs:
        example = f", as {words[0][0]!r} and {words[0][1]!r}" if words else ""
        raise UserError(
            f"{run}: {source.name} and {target.name} have none of {counted(len(words), 'pair')} of words that its "
            f"attention ties to each other{example}: are these the right vectors?"
        )
    return pairs
