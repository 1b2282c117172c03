"""The section `data`: corpora, tokenizers, vocabularies and batches."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dist_s2s.config.tags import SPECIALS, Tags
from dist_s2s.config.values import InputsText, OptionalInputs, OptionalInt, OptionalPath, OptionalText, Section, as_text

# What the parts of the translator call themselves; a type checker compares these names with theirs.
TokenizerName = Literal["whitespace", "words", "characters", "jieba", "bpe", "unigram"]
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


class DataConfig(Section):
    """Corpora, tokenizers, vocabularies and batches."""

    train: InputsText = Field(
        default="phrasebook",
        description="training pairs: a file of any form, a.zh,b.en for parallel files, several with ` + ` between "
        "them, a prepared directory, or phrasebook",
    )
    valid: InputsText = Field(default="phrasebook", description="validation pairs: the same")
    test: InputsText = Field(default="phrasebook", description="test pairs: the same")
    mix: OptionalInputs = Field(
        default=None, description="pairs of another domain that join each epoch, so that it is not forgotten"
    )
    mix_share: float = Field(default=0.2, gt=0, lt=1, description="share of an epoch's pairs that are data.mix's")
    mix_valid: OptionalInputs = Field(
        default=None, description="pairs of another domain that are scored too at each validation"
    )
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
        description="word vectors that the source table begins with: word2vec, GloVe or fastText, also compressed",
    )
    target_vectors: OptionalPath = Field(default=None, description="the same for the target table")

    @model_validator(mode="after")
    def _mixes(self) -> Self:
        if self.mix is None and self.mix_share != type(self).model_fields["mix_share"].default:
            raise ValueError("data.mix_share needs data.mix")
        if self.stream is not None and self.mix is not None:
            raise ValueError("data.mix does not go with data.stream, which has no epochs")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.joint_vocabulary:
            for key in ("tokenizer", "vocabulary_size"):
                source, target = (getattr(self, f"{side}_{key}") for side in ("source", "target"))
                if source != target:
                    raise ValueError(
                        f"data.joint_vocabulary needs data.source_{key} = data.target_{key}, but they are "
                        f"{as_text(source)} and {as_text(target)}; set both alike"
                    )
        if self.target_segmentation not in ("auto", "none") and self.target_tokenizer != "whitespace":
            raise ValueError(
                f"data.target_segmentation {self.target_segmentation} needs data.target_tokenizer whitespace, but "
                f"it is {self.target_tokenizer}"
            )
        if self.bpe_dropout > 0 and "bpe" not in (self.source_tokenizer, self.target_tokenizer):
            raise ValueError(
                "data.bpe_dropout needs data.source_tokenizer or data.target_tokenizer bpe, but they are "
                f"{self.source_tokenizer} and {self.target_tokenizer}; set one of them"
            )
        reserved = len(SPECIALS) + len(self.tags)
        if self.source_vocabulary_size is not None and self.source_vocabulary_size <= reserved:
            raise ValueError(
                f"data.source_vocabulary_size is {self.source_vocabulary_size}, of which {reserved} are special tokens "
                f"and data.tags; give at least {reserved + 1}"
            )
        return self
