"""The sections `training` and `translation`: optimization, scores and the length of the run; of translations."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dist_s2s.config.values import (
    MOST_LENGTH_PENALTY,
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    PathText,
    Patterns,
    Rates,
    Section,
    Steps,
    Trackers,
    Words,
)

BleuTokenizer = Literal[
    "auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200", "spBLEU-1K"
]
Metric = Literal["bleu", "chrf", "loss"]


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
    ema_decay: OptionalFloat = Field(
        default=None,
        gt=0,
        lt=1,
        description="average all weights over the steps, exponentially; validations, the best checkpoint and "
        "translations then use the averages. 0.999: over about the last 1,000 steps; null: none",
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
    trackers: Trackers = Field(
        default=("tensorboard",), description="who is told the figures of metrics.jsonl too: trackers of accelerate"
    )
    trace: Steps = Field(
        default=None,
        description="first and last step of which each rank writes a Chrome trace, FIRST:LAST; null: none is written",
    )
    record_vectors_every: OptionalInt = Field(
        default=None, gt=0, description="steps between records of how words' vectors move; null: none are recorded"
    )
    record_words: Words = Field(
        default=(),
        description="the words that are recorded; none named: frequent ones, rare ones, and those of the validation "
        "samples",
    )
    report: bool = Field(
        default=True, description="write report.html at the end, if the extra `analysis` is there; see docs/analysis.md"
    )
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

    @model_validator(mode="after")
    def _records(self) -> Self:
        if self.record_words and self.record_vectors_every is None:
            raise ValueError("training.record_words needs training.record_vectors_every, which is null")
        return self


class TranslationConfig(Section):
    """How a run's translations are searched for, where a command does not say it."""

    length_factor: OptionalFloat = Field(
        default=None,
        ge=0,
        description="a translation has at most length_factor · source tokens + extra_length tokens, EOS counted; null: "
        "what the training pairs need",
    )
    extra_length: OptionalInt = Field(default=None, ge=1, description="see length_factor; set both or none")
    max_source_tokens: OptionalInt = Field(
        default=None,
        ge=1,
        description="a sentence of more tokens is translated in pieces, cut at punctuation; null: as many as training "
        "sources have, the longest thousandth of them left out",
    )
    length_penalty: float = Field(
        default=1.0,
        ge=0,
        le=MOST_LENGTH_PENALTY,
        description="hypotheses of a beam are ranked by log-probability / length**length_penalty; raise it if "
        "translations are too short",
    )

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.length_factor is None) != (self.extra_length is None):
            raise ValueError("set both translation.length_factor and translation.extra_length, or leave both null")
        return self
