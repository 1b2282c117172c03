"""Words that come into a vocabulary while it is trained: their rows begin anew wherever the model has any."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.averaging import MovingAverage
from dist_s2s.storage.training_state import TrainingState
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.vocabulary_changes import Change
from dist_s2s.training.fine_tuning import BY_TARGET_WORD, SIDE_OF
from dist_s2s.translation.tables.new_rows import Beginning, NewRows, begin_rows
from dist_s2s.translation.translator import Translator


def begin_new_words(
    translator: Translator,
    state: TrainingState,
    source: Sequence[Change],
    target: Sequence[Change],
    beginning: Beginning,
) -> None:
    """Let the rows of ids that have got another word begin anew, with the optimizers' state of them (collective).

    Nothing of a word that has given way is left to the one that takes its id: neither its row in the source or target
    table, nor its class in the output layer, nor the moments or averages of any of them. All other rows stay as they
    are, bit by bit.

    Args:
        translator: whose vocabularies have just been updated.
        state: of its training.
        source, target: what `update` has returned for each side, the same on all ranks.
        beginning: ``initial``, as an untrained table begins; ``pieces``, at the mean of the rows of the word's pieces
            that were in the vocabulary before, see `pieces_of`, or else likewise.
    """
    new_source = NewRows.of(source, translator.source.vocabulary, beginning)
    new_target = NewRows.of(target, translator.target.vocabulary, beginning)
    begin_rows(translator.source_table, new_source, state.table_optimizer)
    begin_rows(translator.target_table, new_target, state.table_optimizer)
    vocabulary = translator.target.vocabulary
    assert isinstance(vocabulary, DynamicVocabulary)
    translator.output.begin_rows(new_target, torch.from_numpy(vocabulary.counts), state)
    if state.average is not None:
        _begin_averages(state, state.average, new_source.ids, new_target.ids)


def _begin_averages(state: TrainingState, average: MovingAverage, source_ids: Tensor, target_ids: Tensor) -> None:
    """Let the averages of rows that have begun anew begin with them (local)."""
    for name, table in state.tables.items():
        ids = {"source": source_ids, "target": target_ids}.get(SIDE_OF.get(name, "target"))
        if ids is None:  # n-grams
            continue
        places = table.partition.positions(ids) - table.partition.offset(table.rank)
        mine = (places >= 0) & (places < len(table.weight))
        average.restart_rows(table.weight, places[mine].to(table.weight.device))
    for name, parameter in state.core.named_parameters():
        if name in BY_TARGET_WORD:
            average.restart_rows(parameter, target_ids.to(parameter.device))
