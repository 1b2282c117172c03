"""A shortlist from what a run was trained on."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

from dist_s2s import UserError, counted
from dist_s2s.analysis.training_counts import training_texts
from dist_s2s.preparation.prepared import open_prepared
from dist_s2s.text.corpus import Corpus, encode_pairs, is_prepared
from dist_s2s.text.lexical_table import choose_examples, learn_table
from dist_s2s.translation.output.start import NEVER_CHOSEN
from dist_s2s.translation.runs.load import SavedRun
from dist_s2s.translation.search.shortlist import Shortlist

_ROUNDS = 5


def make_shortlist(
    run_dir: Path, run: SavedRun, frequent: int, per_token: int, say: Callable[[str], None]
) -> Shortlist:
    """Return the shortlist of a run, from its training pairs, or as many of them as fit. Calls no collectives.

    Args:
        frequent: so many of the most frequent target tokens are in each list.
        per_token: so many translations of each source token are in the lists of its sentences.
        say: shows the user how it goes.

    Raises:
        UserError: the training data are no longer there, or are others by now.
    """
    try:
        corpora = _corpora(run_dir, run)
    except UserError as error:
        raise UserError(f"--shortlist reads what the run was trained on: {error}") from None
    chosen = choose_examples(corpora)
    count, total = sum(map(len, chosen)), sum(map(len, corpora))
    some = f" of {total:,}" if count < total else ""
    say(f"{counted(count, 'pair')} of sentences{some}: learning which tokens translate which")
    numbers = zip(corpora, (each.tolist() for each in chosen), strict=True)
    table = learn_table(chain.from_iterable(map(corpus.__getitem__, which) for corpus, which in numbers), _ROUNDS)
    table = table.without_targets(NEVER_CHOSEN)
    return Shortlist(table.most_frequent(frequent), *table.likeliest(per_token, run.source.vocabulary.num_ids))


def _corpora(run_dir: Path, run: SavedRun) -> list[Corpus]:
    """Return the training data as ids."""
    corpora, data = list[Corpus](), run.config.data
    texts = training_texts(run_dir, run.config)
    if is_prepared(data.train):
        prepared = open_prepared(Path(data.train))
        for name, side in (("source", run.source), ("target", run.target)):
            prepared.check_side(name, side)
        corpora.append(prepared.train)
    if texts:
        corpora.append(encode_pairs(texts, run.source, run.target, data.max_length)[0])
    if not any(map(len, corpora)):
        raise UserError(f"the training data of {run_dir} have no pair of sentences to make a shortlist of")
    return corpora
