"""Training that begins with what another run has learnt: rows and their moments go by words, the rest by its name.

Those of n-grams go by their spelling as well, by which they are hashed: each stays in its place.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dist_s2s.storage.checkpoint import core_tensors, read_manifest
from dist_s2s.storage.table_rows import load_rows
from dist_s2s.storage.training_state import load_optimizer, model_tensors, saved_state
from dist_s2s.text.side import TextSide
from dist_s2s.text.vocabulary import Vocabulary
from dist_s2s.training.optimizers import grouped_names
from dist_s2s.training.trainer import Trainer
from dist_s2s.translation.runs.load import SavedRun

SIDE_OF = {"source_table": "source", "ngram_table": "neither"}  # whose words the rows are of; others: the target's
BY_TARGET_WORD = ("output.weight", "output.bias")  # of the model, where every rank holds the whole output layer


def start_from(trainer: Trainer, origin: SavedRun) -> list[str]:
    """Give a new trainer what the origin has learnt (collective); return what to say of it, a line for each thing.

    A row goes to the token of the same spelling, with its optimizer's state; rows of new tokens begin as always.
    Weights are averages, if the origin keeps any. Steps, epochs and the learning rate begin anew; the moments' own
    counts of steps go on.

    Raises:
        UserError: on every rank, if a file of the checkpoint is damaged.
    """
    translator, state = trainer.translator, trainer.state
    manifest = trainer.ranks.together(lambda: read_manifest(origin.checkpoint))
    sides = {"source": (origin.source, translator.source), "target": (origin.target, translator.target)}
    places = {
        name: new_ids_of(old.vocabulary, new.vocabulary, _num_rows(manifest, name, old))
        for name, (old, new) in sides.items()
    }
    same_optimizer = origin.config.embedding.optimizer == trainer.config.embedding.optimizer

    def load() -> None:
        tensors = core_tensors(origin.checkpoint, manifest)
        _load_core(state.core, tensors, places["target"])
        core_state = saved_state("core_optimizer", tensors, manifest["scalars"])
        _load_core_optimizer(trainer, origin, core_state, places["target"])
        table_state = saved_state("table_optimizer", tensors, manifest["scalars"]) if same_optimizer else {}
        names = list(manifest["tables"])
        moved: dict[int, dict[str, Any]] = {}
        for number, (name, table) in enumerate(state.tables.items()):
            new_ids = places.get(SIDE_OF.get(name, "target"))  # None: all rows stay in place
            rows = load_rows(origin.checkpoint, manifest, name, table, only_weight=not same_optimizer, new_ids=new_ids)
            if same_optimizer:
                moved[number] = table_state.get(names.index(name), {}) | rows
        if same_optimizer:
            load_optimizer(state.table_optimizer, {number: values for number, values in moved.items() if values})

    trainer.ranks.together(load)
    lines = [f"begins with {origin.checkpoint}"]
    for name, (old, new) in sides.items():
        words = [token for token in new.vocabulary.tokens if token in new.vocabulary]  # without special tokens
        known = sum(word in old.vocabulary for word in words)
        lines.append(f"{name}: {known:,} of {len(words):,} tokens have rows there, {len(words) - known:,} are new")
    if not same_optimizer:
        lines.append(f"embedding.optimizer was {origin.config.embedding.optimizer} there, so rows have no moments yet")
    return lines


def new_ids_of(old: Vocabulary, new: Vocabulary, num_rows: int) -> Tensor:
    """Return for each of the old rows the new id of its token, int64 [num_rows], or -1 without one."""
    ids = {token: index for index, token in enumerate(new.tokens)}
    found = [ids.get(token, -1) for token in old.tokens[:num_rows]]
    return torch.tensor(found + [-1] * (num_rows - len(found)))


def _num_rows(manifest: Mapping[str, Any], name: str, old: TextSide) -> int:
    saved = manifest["tables"].get(f"{name}_table", {"num_embeddings": len(old.vocabulary)})
    return int(saved["num_embeddings"])


def _by_word(new: Tensor, old: Tensor, new_ids: Tensor) -> Tensor:
    """Return ``new`` with those rows of ``old`` that have a place."""
    kept = new_ids[: len(old)] >= 0
    result = new.clone()
    result[new_ids[: len(old)][kept]] = old[kept].to(result)
    return result


def _load_core(core: nn.Module, tensors: Mapping[str, Tensor], target_ids: Tensor) -> None:
    own = core.state_dict()
    loaded = model_tensors(tensors, averaged=True)
    for key in BY_TARGET_WORD:
        if key in loaded:
            loaded[key] = _by_word(own[key], loaded[key], target_ids)
    core.load_state_dict(loaded)


def _load_core_optimizer(
    trainer: Trainer, origin: SavedRun, state: dict[int, dict[str, Any]], target_ids: Tensor
) -> None:
    parameters = dict(trainer.translator.core.named_parameters())
    there, here = (
        [name for names in grouped_names(config, parameters).values() for name in names]
        for config in (origin.config, trainer.config)
    )
    moved = {}
    for number, name in enumerate(here):
        values = state.get(there.index(name), {})  # nothing if it was frozen there
        if name in BY_TARGET_WORD:
            fresh = torch.zeros_like(parameters[name])
            values = {
                key: _by_word(fresh, value, target_ids) if isinstance(value, Tensor) and value.dim() else value
                for key, value in values.items()
            }
        if values and parameters[name].requires_grad:
            moved[number] = values
    load_optimizer(trainer.state.core_optimizer, moved)
