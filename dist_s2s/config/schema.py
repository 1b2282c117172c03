"""What each key of a run's configuration means: its type, bounds, default and description."""

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator
from pydantic.fields import FieldInfo

from dist_s2s.config.data import DataConfig
from dist_s2s.config.model import EmbeddingConfig, ModelConfig
from dist_s2s.config.training import TrainingConfig, TranslationConfig
from dist_s2s.config.values import Section, as_text, expand_path


class Config(Section):
    """Everything that decides a run. The defaults are the phrasebook job."""

    run_dir: Annotated[Path, BeforeValidator(expand_path)] = Field(
        default=Path("runs/phrasebook"), description="results and checkpoints of the run"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    training: TrainingConfig = TrainingConfig()
    translation: TranslationConfig = TranslationConfig()

    @model_validator(mode="after")
    def _stream(self) -> Self:
        data = self.data
        if data.stream is None:
            return self
        for key in ("source_vocabulary_size", "target_vocabulary_size"):
            if getattr(data, key) is None:
                raise ValueError(
                    f"data.stream needs data.{key}, since a vocabulary that follows a stream has a fixed number of ids"
                )
        for key in ("columns", "skip_bad_lines"):
            if getattr(data, key):
                raise ValueError(
                    f"data.stream does not go with data.{key}: its lines are SOURCE<TAB>TARGET, and one that is not "
                    "ends the run"
                )
        given = [f"data.{key}" for key in ("joint_vocabulary", "tags", "source_vectors", "target_vectors")]
        wrong = [key for key in given if getattr(data, key.removeprefix("data."))]
        wrong += ["training.init_from"] * (self.training.init_from is not None)
        tokenizers = {key: getattr(data, key) for key in ("source_tokenizer", "target_tokenizer")}
        wrong += [f"data.{key}: {name}" for key, name in tokenizers.items() if name in ("bpe", "unigram")]
        if wrong:
            raise ValueError(
                f"data.stream does not go with {' and '.join(wrong)}: its vocabularies begin empty and follow it"
            )
        return self

    @model_validator(mode="after")
    def _ties(self) -> Self:
        model = self.model
        if model.tie_embeddings and model.readout_dim != model.embedding_dim:
            raise ValueError(
                "model.tie_embeddings needs model.readout_size = model.embedding_dim, or null, but they are "
                f"{model.readout_size} and {model.embedding_dim}"
            )
        if model.tie_embeddings and model.output == "replicated":
            raise ValueError("model.tie_embeddings needs model.output sharded or sampled, but it is replicated")
        if model.tie_source and not self.data.joint_vocabulary:
            raise ValueError("model.tie_source needs data.joint_vocabulary: one table has the rows of one vocabulary")
        if model.tie_source and self.data.source_vectors is not None:
            raise ValueError(
                "with model.tie_source there is no source table to begin with data.source_vectors; give them as "
                "data.target_vectors"
            )
        return self

    @model_validator(mode="after")
    def _lexical(self) -> Self:
        if self.model.lexical and self.model.attention == "none":
            raise ValueError("model.lexical needs model.attention, which finds the source words, but it is none")
        return self

    @model_validator(mode="after")
    def _beginnings(self) -> Self:
        names = ("vectors_learning_rate", "freeze_vectors", "project_vectors", "uncovered_std")
        given = [f"embedding.{name}" for name in names if getattr(self.embedding, name) not in (None, False)]
        if given and self.data.source_vectors is None and self.data.target_vectors is None:
            raise ValueError(f"without data.source_vectors or data.target_vectors, leave out {' and '.join(given)}")
        if self.training.init_from is not None and (self.data.source_vectors or self.data.target_vectors):
            raise ValueError("training.init_from already says what the tables begin with; leave out the vectors")
        if self.data.vocabulary != "build" and self.training.init_from is None:
            raise ValueError(f"data.vocabulary: {self.data.vocabulary} needs training.init_from")
        return self

    def to_yaml(self) -> str:
        """Return all keys as YAML text, from which `load_config` makes an equal Config."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
LIMITS = ("training.max_steps", "training.max_minutes", "training.max_epochs")
KEYS: dict[str, FieldInfo] = {"run_dir": Config.model_fields["run_dir"]} | {
    f"{name}.{key}": field for name, section in SECTIONS.items() for key, field in section.model_fields.items()
}

RESUMABLE_KEYS = frozenset(
    {
        "run_dir",
        "data.stream_wait",
        "embedding.transport",
        "training.max_steps",
        "training.max_minutes",
        "training.max_epochs",
        "training.validate_every",
        "training.checkpoint_every",
        "training.keep_checkpoints",
        "training.nonfinite_gradient",
        "training.metric",
        "training.bleu_tokenizer",
        "training.patience",
        "training.log_every",
        "training.trackers",
        "training.trace",
        "training.record_vectors_every",
        "training.record_words",
        "training.report",
        "training.resume",
        "training.resume_with_other_data",
        "training.threads_per_rank",
        "translation.length_factor",
        "translation.extra_length",
        "translation.max_source_tokens",
        "translation.length_penalty",
    }
)


def differences(there: Config, here: Config) -> list[str]:
    """Return a line for each key whose values differ, except the RESUMABLE_KEYS, which a resumed run may change."""
    pairs = [(key, _value(there, key), _value(here, key)) for key in KEYS if key not in RESUMABLE_KEYS]
    chosen = {"model.output": here.model.output, "training.precision": here.training.precision}
    # What is left to the program goes on with whatever it meant there.
    pairs = [pair for pair in pairs if chosen.get(pair[0]) != "auto"]
    return [f"{key}: {as_text(old)} there, {as_text(new)} here" for key, old, new in pairs if old != new]


def _value(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
