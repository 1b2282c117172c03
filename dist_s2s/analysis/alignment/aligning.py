"""From two tables of vectors to a mapping, its scores, and what can be written of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dist_s2s import UserError
from dist_s2s.analysis.alignment import learning
from dist_s2s.analysis.alignment.dictionary import Pairs, find_pairs, hold_out, read_dictionary
from dist_s2s.analysis.alignment.mapping import Mapping, map_rows, procrustes
from dist_s2s.analysis.alignment.normalizing import Normalization, normalize
from dist_s2s.analysis.alignment.retrieval import Translations
from dist_s2s.analysis.alignment.scores import chance, scores
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.distributed import Ranks

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to learn a mapping from: a dictionary, a saved mapping, or else a start without either.

    Attributes:
        dictionary: file of pairs to learn from, of which a share is held out unless there is a test file.
        test: file of pairs to test with.
        test_share: of the dictionary's source words.
        start: of self-learning: "structure", "identical" or "frequency".
        mapping: file that `align` has saved.
        refine: rounds after the dictionary.
        learning_words: most frequent words that refinement and self-learning choose pairs from.
        patience: of self-learning.
        seed: of the split, the bootstrap, and self-learning.
    """

    dictionary: str | None = None
    test: str | None = None
    test_share: float = 0.2
    start: str = "structure"
    mapping: Path | None = None
    refine: int = 5
    learning_words: int = 10_000
    patience: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Alignment:
    """Two normalized tables and the mapping from one to the other.

    Attributes:
        answer: figures, as plain values for JSON.
    """

    source: WordVectors
    target: WordVectors
    mapping: Mapping
    translations: Translations
    answer: dict[str, Any]


def align(source: WordVectors, target: WordVectors, settings: Settings, ranks: Ranks, say: Say) -> Alignment:
    """Learn and test a mapping (collective). The vectors are normalized in place.

    Args:
        say: shows the user how it goes.

    Raises:
        UserError: on every rank, for dimensions that differ, tables or dictionaries that will not do, or a mapping of
            another dimension.
    """
    if source.rows.dim != target.rows.dim:
        raise UserError(
            f"the vectors of {source.name} have {source.rows.dim} numbers, but those of {target.name} have "
            f"{target.rows.dim}; they must be of one length"
        )
    pairs, test = ranks.together(lambda: _pairs(source, target, settings, say))
    normalizations = [_normalize(side, say) for side in (source, target)]
    matrices = _learn(source, target, pairs, settings, ranks, say)
    compared = {how: Translations(map_rows(source.rows, matrix), target.rows) for how, matrix in matrices.items()}
    *_, matrix = matrices.values()
    *_, translations = compared.values()
    candidates = len(target.words) - target.reserved - normalizations[1].dead - normalizations[1].non_finite
    answer: dict[str, Any] = {
        "source": {"name": source.name, "words": len(source.words) - source.reserved},
        "target": {"name": target.name, "words": len(target.words) - target.reserved},
        "dimension": source.rows.dim,
        "training_pairs": len(pairs),
        "test_words": len({word for word, _ in test}),
        "mean_similarity": translations.mean_similarity,
        "scores": [],
    }
    if test:
        methods = [("no mapping", Translations(source.rows, target.rows), False)]
        methods += [(how, each, csls) for how, each in compared.items() for csls in (False, True)]
        answer["scores"] = _scores(methods, test, candidates, settings.seed)
    return Alignment(source, target, Mapping(matrix, normalizations[1]), translations, answer)


def _learn(
    source: WordVectors, target: WordVectors, pairs: Pairs, settings: Settings, ranks: Ranks, say: Say
) -> dict[str, Tensor]:
    """Return the mappings by how they were found; the last one is the result (collective)."""
    file = settings.mapping
    if file is not None:
        return {"the saved mapping": ranks.together(lambda: Mapping.load(file, source.rows.dim)).matrix}
    if settings.dictionary is not None:
        found = {"Procrustes": procrustes(source.rows, target.rows, pairs)}
        if settings.refine:
            found["refined"] = learning.refine(
                source, target, found["Procrustes"], pairs, settings.refine, settings.learning_words
            )
        return found
    start = _start(source, target, settings)
    say(f"self-learning begins with {len(start):,} pairs")
    self_learning = learning.SelfLearning(settings.learning_words, settings.patience, settings.seed)
    return {f"self-learnt from {settings.start}": learning.self_learn(source, target, start, self_learning, say)}


def _pairs(source: WordVectors, target: WordVectors, settings: Settings, say: Say) -> tuple[Pairs, Pairs]:
    """Return the pairs to learn from and those to test with."""
    pairs, test = list[tuple[int, int]](), list[tuple[int, int]]()
    if settings.dictionary is not None:
        found = find_pairs(settings.dictionary, read_dictionary(settings.dictionary), source.ids, target.ids)
        say(found.description)
        pairs = found.pairs
    if settings.test is not None:
        found = find_pairs(settings.test, read_dictionary(settings.test), source.ids, target.ids)
        say(found.description)
        test, tested = found.pairs, {word for word, _ in found.pairs}
        kept = [pair for pair in pairs if pair[0] not in tested]
        if len(kept) < len(pairs):
            say(f"{len(pairs) - len(kept):,} pairs of the dictionary have a word of the test: they are left out")
        pairs = kept
    elif pairs:
        pairs, test = hold_out(pairs, settings.test_share, settings.seed)
        if settings.test_share > 0 and not test:
            say(
                f"warning: no word is left to test with: {settings.test_share:g} of the dictionary's "
                f"{len({word for word, _ in pairs}):,} source words is less than one; raise --test_share or give --test"
            )
    if settings.dictionary is not None and not pairs:
        raise UserError(f"{settings.dictionary}: no pair is left to learn from, since all words are tested")
    if 0 < len(pairs) < source.rows.dim:
        say(f"warning: {len(pairs):,} pairs do not determine a rotation of {source.rows.dim} dimensions")
    return pairs, test


def _normalize(side: WordVectors, say: Say) -> Normalization:
    try:
        found = normalize(side.rows, side.reserved)
    except ValueError as error:
        raise UserError(f"{side.name}: {error}") from None
    kinds = ((found.dead, "zero"), (found.non_finite, "not finite"))
    if any(count for count, _ in kinds):
        what = " and ".join(f"{count:,} that are {kind}" for count, kind in kinds if count)
        say(f"{side.name} has vectors without a direction, {what}: these words have no translation")
    return found


def _start(source: WordVectors, target: WordVectors, settings: Settings) -> Pairs:
    match settings.start:
        case "identical":
            found = learning.identical_words(source, target)
        case "frequency":
            found = learning.frequency_ranks(source, target, settings.learning_words)
        case _:
            found = learning.similar_structure(source, target)
    if not found:
        raise UserError(f"{source.name} and {target.name} have no word in common; choose another --start")
    return found


def _scores(
    methods: list[tuple[str, Translations, bool]], test: Pairs, candidates: int, seed: int
) -> list[dict[str, Any]]:
    found = []
    for how, translations, csls in methods:
        ranks = translations.ranks(test, csls=csls)
        values = {name: asdict(score) for name, score in scores(list(ranks.values()), seed).items()}
        found.append({"mapping": how, "retrieval": "CSLS" if csls else "nearest", **values})
    counts: dict[int, int] = {}
    for word, _ in test:
        counts[word] = counts.get(word, 0) + 1
    expected = {name: {"value": value} for name, value in chance(list(counts.values()), candidates).items()}
    return [*found, {"mapping": "chance", "retrieval": "", **expected}]
