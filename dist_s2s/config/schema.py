"""What each key of a run's configuration means: its type, bounds, default and description."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from dist_s2s.config.tags import SPECIALS, Tags

# What the parts of the translator call themselves; a type checker compares these names with theirs.
TokenizerName = Literal["whitespace", "words", "characters", "jieba", "bpe", "unigram"]
AttentionName = Literal["none", "dot", "general", "additive"]
BleuTokenizer = Literal[
    "auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200", "spBLEU-1K"
]
Metric = Literal["bleu", "chrf", "loss"]


def _none_from_text(value: object) -> object:
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


def expand_path(text: object) -> object:
    """Return a path with ``~`` and environment variables expanded; what is no text is returned as it is.

    Raises:
        ValueError: if a variable is not set.
    """
    if not isinstance(text, str):
        return text
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset is not None:
        raise ValueError(f"the environment variable in {text!r} is not set: {unset.group()}")
    return expanded


def expand_inputs(value: object) -> object:
    """Return inputs as text: those of a list with ` + ` between them, each path expanded as by `expand_path`.

    Raises:
        ValueError: as `expand_path`.
    """
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = " + ".join(value)
    if not isinstance(value, str):
        return value
    return "".join(str(expand_path(part)) for part in re.split(r"( \+ |,)", value))


PathText = Annotated[str, BeforeValidator(expand_path)]
OptionalPath = Annotated[str | None, BeforeValidator(lambda value: expand_path(_none_from_text(value)))]
InputsText = Annotated[str, BeforeValidator(expand_inputs)]
OptionalText = Annotated[str | None, BeforeValidator(_none_from_text)]
OptionalInt = Annotated[int | None, BeforeValidator(_none_from_text)]
OptionalFloat = Annotated[float | None, BeforeValidator(_none_from_text)]


def _list_from_text(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _rates_from_text(value: object) -> object:
    """Return {pattern: factor} from PATTERN=FACTOR,PATTERN=FACTOR."""
    if not isinstance(value, str):
        return value
    return dict(part.strip().rpartition("=")[::2] for part in value.split(",") if part.strip())


Patterns = Annotated[tuple[str, ...], BeforeValidator(_list_from_text)]
Rates = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_rates_from_text)]


class Section(BaseModel):
    """One section of the YAML file: immutable, without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Corpora, tokenizers, vocabularies and batches."""

    train: InputsText = Field(
        default="phrasebook",
        description="training pairs: a file of any form, a.zh,b.en for parallel files, several with ` + ` between "
        "them, a prepared directory, or phrasebook",
    )
    valid: InputsText = Field(default="phrasebook", description="validation pairs: the same")
    test: InputsText = Field(default="phrasebook", description="test pairs: the same")
    columns: OptionalText = Field(
        default=None,
        description="source and target of these files: column numbers (1,2), keys (source,target) or languages "
        "(en,zh); null: as a file tells",
    )
    skip_bad_lines: bool = Field(
        default=False, description="leave out lines that are no pair, instead of refusing them"
    )
    stream: OptionalPath = Field(
        default=None,
        description="a file or named pipe of SOURCE<TAB>TARGET lines that may keep growing, to train on instead of "
        "data.train; vocabularies then follow what it is about",
    )
    stream_wait: float = Field(
        default=0.0, ge=0, description="seconds without anything new after which a stream has ended"
    )
    vocabulary_update_every: int = Field(
        default=10_000,
        gt=0,
        description="pairs of a stream that are read at a time: their words are counted, then they are trained on",
    )
    vocabulary_halve_every: OptionalInt = Field(
        default=None, gt=0, description="words of a stream after which all counts are halved; null: never"
    )
    new_words: Literal["initial", "pieces"] = Field(
        default="initial",
        description="where rows of a stream's new words begin: as an untrained table's, or at the mean of the words "
        "in the vocabulary that they are made of",
    )
    source_tokenizer: TokenizerName = Field(default="characters", description="how source text is cut into tokens")
    target_tokenizer: TokenizerName = Field(default="words", description="how target text is cut into tokens")
    batch_tokens: int = Field(default=2000, gt=0, description="target tokens of the global batch, all ranks together")
    max_length: int = Field(default=100, gt=0, description="tokens; longer training pairs are dropped and counted")
    normalization: Literal["none", "NFC", "NFKC"] = Field(
        default="NFC", description="Unicode form of both sides, in training, translating and scoring"
    )
    target_segmentation: Literal["auto", "none", "subword-nmt", "sentencepiece"] = Field(
        default="auto",
        description="marks by which text for the whitespace tokenizer was cut into subwords before, which output and "
        "scores undo; auto: as its tokens tell",
    )
    source_vocabulary_size: OptionalInt = Field(
        default=None,
        ge=5,
        description="most tokens kept, specials included; null: all, or of subwords what fits the text",
    )
    target_vocabulary_size: OptionalInt = Field(default=None, ge=5, description="the same for the target side")
    joint_vocabulary: bool = Field(default=False, description="both sides have one vocabulary, of the tokens of both")
    min_frequency: int = Field(default=1, ge=1, description="rarer tokens become <unk>; subwords never do")
    byte_fallback: bool = Field(
        default=True, description="subwords: spell rare characters in bytes, so that none becomes <unk>"
    )
    bpe_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the merges that bpe skips in training, drawn anew each epoch"
    )
    tags: Tags = Field(
        default=(), description="tokens such as <2en> that a source sentence may begin with; separated by commas"
    )
    vocabulary: Literal["build", "keep", "extend"] = Field(
        default="build",
        description="build: from the training pairs; keep: that of training.init_from; extend: that, and new tokens",
    )
    source_vectors: OptionalPath = Field(
        default=None,
        description="word vectors that the source table begins with: word2vec, GloVe or fastText, also .gz",
    )
    target_vectors: OptionalPath = Field(default=None, description="the same for the target table")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.joint_vocabulary:
            for key in ("tokenizer", "vocabulary_size"):
                source, target = (getattr(self, f"{side}_{key}") for side in ("source", "target"))
                if source != target:
                    raise ValueError(
                        f"data.joint_vocabulary needs data.source_{key} = data.target_{key}, but they are "
                        f"{as_text(source)} and {as_text(target)}"
                    )
        if self.target_segmentation not in ("auto", "none") and self.target_tokenizer != "whitespace":
            raise ValueError(
                f"data.target_segmentation {self.target_segmentation} needs data.target_tokenizer whitespace, but "
                f"it is {self.target_tokenizer}"
            )
        if self.bpe_dropout > 0 and "bpe" not in (self.source_tokenizer, self.target_tokenizer):
            raise ValueError(
                "data.bpe_dropout needs data.source_tokenizer or data.target_tokenizer bpe, but they are "
                f"{self.source_tokenizer} and {self.target_tokenizer}"
            )
        reserved = len(SPECIALS) + len(self.tags)
        if self.source_vocabulary_size is not None and self.source_vocabulary_size <= reserved:
            raise ValueError(
                f"data.source_vocabulary_size is {self.source_vocabulary_size}, of which {reserved} are special tokens "
                f"and data.tags; give at least {reserved + 1}"
            )
        return self


class ModelConfig(Section):
    """The encoder-decoder, and its output layer."""

    kind: Literal["lstm"] = Field(default="lstm", description="the encoder-decoder")
    embedding_dim: int = Field(default=128, gt=0, description="numbers in an embedding row")
    hidden_size: int = Field(default=256, gt=0, multiple_of=2, description="units of the decoder LSTM; even")
    num_layers: int = Field(default=1, ge=1, description="LSTM layers of the encoder and of the decoder")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="share of activations zeroed in training")
    attention: AttentionName = Field(
        default="dot", description="how the decoder looks at the source; none: the context vector alone"
    )
    output: Literal["auto", "replicated", "sharded", "sampled"] = Field(
        default="auto", description="output layer: on every rank, row-sharded, or sharded and trained on a sample"
    )
    output_samples: int = Field(default=4096, ge=1, description="candidates of a step; for output: sampled")
    tie_embeddings: bool = Field(default=False, description="target table and output layer are one sharded table")
    input_feeding: bool = Field(default=False, description="feed the attention output into the next decoder step")


class EmbeddingConfig(Section):
    """The row-sharded tables and their optimizer."""

    layout: Literal["contiguous", "round_robin"] = Field(default="contiguous", description="which rank owns which row")
    transport: Literal["auto", "collective", "shared_memory"] = Field(
        default="auto",
        description="how rows travel; auto: through shared memory if all ranks share it, else by collectives",
    )
    num_embeddings: OptionalInt = Field(
        default=None, gt=0, description="rows of every table; null: one for each token of its vocabulary"
    )
    comm_dtype: Annotated[Literal["bf16", "fp16"] | None, BeforeValidator(_none_from_text)] = Field(
        default=None, description="in which rows and gradients travel; null: as they are"
    )
    optimizer: Literal["sgd", "adagrad", "rowwise_adagrad", "sparse_adam", "rowwise_adam"] = Field(
        default="sparse_adam",
        description="optimizer of the tables; it touches only the rows that a batch used",
    )
    learning_rate: OptionalFloat = Field(default=None, gt=0, description="of the tables; null: training.learning_rate")
    vectors_learning_rate: OptionalFloat = Field(
        default=None, gt=0, description="of tables that begin with word vectors; null: embedding.learning_rate"
    )
    freeze_vectors: bool = Field(default=False, description="rows that word vectors cover are never updated")
    project_vectors: bool = Field(
        default=False, description="allow word vectors of another dimension than model.embedding_dim"
    )
    uncovered_std: OptionalFloat = Field(
        default=None, ge=0, description="scale of rows that word vectors do not cover; null: that of those they do"
    )


class TranslationConfig(Section):
    """How long a translation may become."""

    length_factor: OptionalFloat = Field(
        default=None,
        ge=0,
        description="a translation has at most length_factor · source tokens + extra_length tokens, EOS counted; null: "
        "what the training pairs need",
    )
    extra_length: OptionalInt = Field(default=None, ge=1, description="see length_factor; set both or none")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.length_factor is None) != (self.extra_length is None):
            raise ValueError("set both translation.length_factor and translation.extra_length, or leave both null")
        return self


class TrainingConfig(Section):
    """Optimization, length of the run, checkpoints."""

    learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate, reached after the warm-up")
    warmup_steps: int = Field(default=100, ge=0, description="steps of linear warm-up")
    max_steps: OptionalInt = Field(default=None, gt=0, description="stop after this many steps")
    max_minutes: OptionalFloat = Field(default=None, gt=0, description="stop after this many minutes of training")
    max_epochs: OptionalInt = Field(
        default=8,
        gt=0,
        description="stop after this many epochs; the first limit counts. Limits on the command line replace those of "
        "the file, and those of the file the defaults",
    )
    seed: int = Field(default=1, ge=0, lt=2**63, description="of initialisation, dropout and batch order")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        default="auto",
        description="bf16: autocast, tables stay fp32; auto: bf16 where the hardware has it and is faster with it",
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="probability spread over the other tokens")
    max_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this global norm")
    nonfinite_gradient: Literal["stop", "skip"] = Field(
        default="stop", description="what all ranks do if any rank's gradient is nan or infinite"
    )
    validate_every: int = Field(default=250, gt=0, description="steps between validations")
    checkpoint_every: int = Field(default=500, gt=0, description="steps between checkpoints")
    keep_checkpoints: int = Field(default=2, ge=1, description="newest checkpoints kept")
    metric: Metric = Field(
        default="bleu", description="what makes a validation the best one, and serves patience; a tie goes by the loss"
    )
    bleu_tokenizer: BleuTokenizer = Field(
        default="auto", description="sacreBLEU's tokenizer for BLEU; auto: by the script of the validation references"
    )
    patience: int = Field(default=0, ge=0, description="validations without a better one before stopping; 0: never")
    log_every: int = Field(default=20, gt=0, description="steps between lines of metrics.jsonl")
    init_from: OptionalPath = Field(
        default=None, description="a run or one of its checkpoints, whose weights this run begins with: fine-tuning"
    )
    frozen: Patterns = Field(
        default=(), description="parts that do not learn, as parameters.txt names them: source_table, encoder.*"
    )
    part_learning_rates: Rates = Field(
        default={}, description="factors of the learning rate by part: {source_table: 0.1, encoder.*: 0.5}"
    )
    resume: PathText = Field(
        default="auto", description="auto: from the newest checkpoint; never; or a checkpoint's path"
    )
    resume_with_other_data: bool = Field(
        default=False, description="go on although data files have changed; the best score so far no longer counts"
    )
    threads_per_rank: OptionalInt = Field(
        default=None, gt=0, description="CPU threads; null: the cores of a host divided by its ranks"
    )

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.max_steps is None and self.max_minutes is None and self.max_epochs is None:
            raise ValueError("set training.max_steps, training.max_minutes or training.max_epochs: all are null")
        return self


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
        if model.tie_embeddings and model.embedding_dim != model.hidden_size:
            raise ValueError(
                "model.tie_embeddings needs model.embedding_dim = model.hidden_size, but they are "
                f"{model.embedding_dim} and {model.hidden_size}"
            )
        if model.tie_embeddings and model.output == "replicated":
            raise ValueError("model.tie_embeddings needs model.output sharded or sampled, but it is replicated")
        return self

    @model_validator(mode="after")
    def _beginnings(self) -> Self:
        names = ("vectors_learning_rate", "freeze_vectors", "project_vectors", "uncovered_std")
        given = [f"embedding.{name}" for name in names if getattr(self.embedding, name) not in (None, False)]
        if given and self.data.source_vectors is None and self.data.target_vectors is None:
            raise ValueError(f"{' and '.join(given)} need data.source_vectors or data.target_vectors")
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
# What decides which ids a text becomes: the keys of `data` that a prepared corpus has settled.
ENCODING_KEYS = (
    "source_tokenizer",
    "target_tokenizer",
    "max_length",
    "source_vocabulary_size",
    "target_vocabulary_size",
    "min_frequency",
    "normalization",
    "target_segmentation",
    "joint_vocabulary",
    "byte_fallback",
    "tags",
)
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
        "training.resume",
        "training.resume_with_other_data",
        "training.threads_per_rank",
        "translation.length_factor",
        "translation.extra_length",
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


def as_text(value: object) -> str:
    """Return a value in YAML's words, such as null and true."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return str(value)
