"""The run that another one begins with, and whether its weights and words have a place there."""

from pathlib import Path

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.config.values import as_text
from dist_s2s.storage.checkpoint import read_manifest
from dist_s2s.storage.quantization import refuse_quantized
from dist_s2s.storage.run_directory import CONFIG, checkpoint_of_run
from dist_s2s.storage.run_files import check_run
from dist_s2s.translation.runs.load import SavedRun, best_checkpoint, read_saved

# What must be the same for the weights to have a place.
_SIZES = ("kind", "embedding_dim", "hidden_size", "encoder_layers", "decoder_layers")
_TIES = ("tie_embeddings", "tie_source", "scale_embeddings")
_KINDS = ("attention", "lexical", "output", "layer_norm", *_TIES, "input_feeding")
_MEANINGS = {"encoder_layers": "encoder_depth", "decoder_layers": "decoder_depth"}  # where null stands for another key
_NGRAM_KEYS = ("ngrams", "ngram_rows", "ngram_dim")


def read_origin(path: Path) -> SavedRun:
    """Find a run's best checkpoint, or take the checkpoint itself. Calls no collectives.

    Raises:
        UserError: if it is neither a run nor a checkpoint, or damaged.
    """
    checkpoint = checkpoint_of_run(path)
    run_dir = path if checkpoint is None else checkpoint.parent.parent
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"training.init_from: {path} is neither a run directory nor a checkpoint of one")
    check_run(run_dir)
    checkpoint = checkpoint or best_checkpoint(run_dir)
    if checkpoint is None:
        raise UserError(f"training.init_from: {path} has no checkpoint yet; train it first")
    refuse_quantized(checkpoint, read_manifest(checkpoint), "training.init_from begins with")
    return read_saved(run_dir, checkpoint)


def check_models_fit(origin: SavedRun, config: Config) -> None:
    """Raise UserError with a line for each setting that gives the origin's weights no place in a run."""
    there, here = origin.config, config
    names = [(key, _MEANINGS.get(key, key)) for key in (*_SIZES, *_KINDS)]
    pairs = [(f"model.{key}", getattr(there.model, name), getattr(here.model, name)) for key, name in names]
    if all(old == new for _, old, new in pairs):  # otherwise it follows from the others
        pairs = [("model.readout_size", there.model.readout_dim, here.model.readout_dim)]
    if there.embedding.ngrams or here.embedding.ngrams:
        tables = there.embedding, here.embedding
        pairs += [(f"embedding.{key}", *(getattr(each, key) for each in tables)) for key in _NGRAM_KEYS]
    wrong = [f"{key} is {as_text(old)} there, {as_text(new)} here" for key, old, new in pairs if old != new]
    if wrong:
        raise UserError(f"training.init_from: {origin.checkpoint} has another model:\n" + "\n".join(wrong))
