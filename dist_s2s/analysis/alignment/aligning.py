"""From two tables of vectors to a mapping, its scores, and what can be written of it."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dist_s2s import UserError, counted
from dist_s2s.analysis.alignment import learning
from dist_s2s.analysis.alignment.anchors import Say, Settings, choose_pairs, read_dictionaries, with_pieces
from dist_s2s.analysis.alignment.attention import WordPairs, attended_words, mutual_best, ranks_by
from dist_s2s.analysis.alignment.dictionary import Pairs
from dist_s2s.analysis.alignment.mapping import Mapping, map_rows, procrustes
from dist_s2s.analysis.alignment.normalizing import Normalization, normalize
from dist_s2s.analysis.alignment.retrieval import Translations
from dist_s2s.analysis.alignment.scores import chance, scores
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.distributed import Ranks


@dataclass(frozen=True)
class Alignment:
    """Two normalized tables and the mapping from one to the other.

    Attributes:
        answer: figures, as plain values for JSON.
        attended: how closely a run's attention ties words to each other, if it was learnt from.
    """

    source: WordVectors
    target: WordVectors
    mapping: Mapping
    translations: Translations
    answer: dict[str, Any]
    attended: WordPairs


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
    run = settings.attention
    attended = {} if run is None else attended_words(run, settings.parallel, settings.columns, ranks, say)
    entries = ranks.together(lambda: read_dictionaries(source, target, settings))
    words = [*((entry.source, entry.target) for each in entries.values() for entry in each), *mutual_best(attended)]
    source = with_pieces(source, [word for word, _ in words], ranks, say)
    target = with_pieces(target, [word for _, word in words], ranks, say)
    pairs, test = ranks.together(lambda: choose_pairs(source, target, entries, attended, settings, say))
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
        if attended:
            named = [(source.plain_words[a], target.plain_words[b]) for a, b in test]
            row = _row("none: attention", "Dice", ranks_by(attended, named, candidates), settings.seed)
            answer["scores"].insert(1, row)
    return Alignment(source, target, Mapping(matrix, normalizations[1]), translations, answer, attended)


def _learn(
    source: WordVectors, target: WordVectors, pairs: Pairs, settings: Settings, ranks: Ranks, say: Say
) -> dict[str, Tensor]:
    """Return the mappings by how they were found; the last one is the result (collective)."""
    file = settings.mapping
    if file is not None:
        return {"the saved mapping": ranks.together(lambda: Mapping.load(file, source.rows.dim)).matrix}
    if settings.dictionary is not None or settings.attention is not None:
        found = {"Procrustes": procrustes(source.rows, target.rows, pairs)}
        if settings.refine:
            found["refined"] = learning.refine(
                source, target, found["Procrustes"], pairs, settings.refine, settings.learning_words
            )
        return found
    start = _start(source, target, settings)
    say(f"self-learning begins with {counted(len(start), 'pair')}")
    self_learning = learning.SelfLearning(settings.learning_words, settings.patience, settings.seed)
    return {f"self-learnt from {settings.start}": learning.self_learn(source, target, start, self_learning, say)}


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
        found.append(_row(how, "CSLS" if csls else "nearest", list(ranks.values()), seed))
    counts: dict[int, int] = {}
    for word, _ in test:
        counts[word] = counts.get(word, 0) + 1
    expected = {name: {"value": value} for name, value in chance(list(counts.values()), candidates).items()}
    return [*found, {"mapping": "chance", "retrieval": "", **expected}]


def _row(mapping: str, retrieval: str, ranks: list[int], seed: int) -> dict[str, Any]:
    values = {name: asdict(score) for name, score in scores(ranks, seed).items()}
    return {"mapping": mapping, "retrieval": retrieval, **values}
