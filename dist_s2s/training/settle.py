"""What a configuration leaves to the program, decided once when a run starts, and written to its config.yaml."""

from pathlib import Path

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.storage.run_directory import CONFIG
from dist_s2s.training.data import RunData
from dist_s2s.training.origin import check_models_fit, read_origin
from dist_s2s.translation.output import choose_output
from dist_s2s.translation.runs.load import SavedRun
from dist_s2s.translation.scores.scoring import Scorer
from dist_s2s.translation.search.length_limits import fit_length_limits, longest_source


def settle(config: Config, checkpoint: Path | None, origin: SavedRun | None, data: RunData, ranks: Ranks) -> Config:
    """Return the configuration without an ``auto`` or null that stands for a choice of the program's (collective)."""
    config = ranks.together(lambda: settle_output(config, checkpoint, origin, data, ranks.world_size))
    tokenizer = ranks.on_first(lambda: _bleu_tokenizer(config, checkpoint, data))
    training = config.training.model_copy(update={"bleu_tokenizer": tokenizer})
    translation = config.translation
    lengths = (data.train if config.data.stream is None else data.valid).lengths  # nothing of a stream has been read
    if translation.length_factor is None:
        factor, extra = fit_length_limits(lengths)
        translation = translation.model_copy(update={"length_factor": factor, "extra_length": extra})
    if translation.max_source_tokens is None:
        translation = translation.model_copy(update={"max_source_tokens": max(1, longest_source(lengths))})
    return config.model_copy(update={"training": training, "translation": translation})


def find_origin(config: Config, checkpoint: Path | None) -> SavedRun | None:
    """Return what ``training.init_from`` names, for a run that does not go on from a checkpoint of its own."""
    path = config.training.init_from
    return None if path is None or checkpoint is not None else read_origin(Path(path))


def settle_output(
    config: Config, checkpoint: Path | None, origin: SavedRun | None, data: RunData, world_size: int
) -> Config:
    """Decide what ``model.output: auto`` means: what it did in the checkpoint's or the origin's run, or by its size.

    Raises:
        UserError: if the tables are to have fewer rows than a vocabulary has tokens, or the origin has another model.
    """
    tokens, rows = max(data.source.vocabulary.num_ids, data.target.vocabulary.num_ids), config.embedding.num_embeddings
    if rows is not None and rows < tokens:
        raise UserError(
            f"embedding.num_embeddings is {rows}, but a vocabulary has {tokens} tokens; give at least {tokens}, or null"
        )
    model = config.model
    output = model.output
    if output == "auto" and origin is not None:
        output = origin.config.model.output
    elif output == "auto" and checkpoint is not None:
        output = config_of(checkpoint).model.output
    elif output == "auto":
        output = choose_output(data.target.vocabulary.num_ids, model.readout_dim, world_size, tied=model.tie_embeddings)
    config = config.model_copy(update={"model": model.model_copy(update={"output": output})})
    if origin is not None:
        check_models_fit(origin, config)
    return config


def config_of(checkpoint: Path) -> Config:
    """Return the configuration of a checkpoint's run."""
    return load_config(checkpoint.parent.parent / CONFIG, {})


def score_warning(config: Config, data: RunData) -> str | None:
    """Return what to say where BLEU will be 0 whatever the translations; None if it can be more."""
    tokenizer, references = config.training.bleu_tokenizer, [reference for _, reference in data.valid_pairs]
    if config.training.metric != "bleu" or Scorer(tokenizer, ()).can_tell(references):
        return None
    return (
        f"no validation reference has four tokens as BLEU's tokenizer {tokenizer} cuts them, so BLEU will be 0 even of "
        "perfect translations; set training.metric to chrf or loss"
    )


def _bleu_tokenizer(config: Config, checkpoint: Path | None, data: RunData) -> str:
    """Decide what ``training.bleu_tokenizer: auto`` means: what it did in the checkpoint's run, or by the script.

    Raises:
        UserError: if the tokenizer is not installed here.
    """
    name: str = config.training.bleu_tokenizer
    if name == "auto" and checkpoint is not None:
        name = config_of(checkpoint).training.bleu_tokenizer
    references = [reference for _, reference in data.valid_pairs]
    scorer = Scorer(name, references)
    scorer.check()  # before hours of training
    return scorer.tokenizer
