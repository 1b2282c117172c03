"""The sections `model` and `embedding`: the encoder-decoder, and the sharded tables."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dist_s2s.config.values import OptionalFloat, OptionalInt, Orders, Section, none_from_text

AttentionName = Literal["none", "dot", "general", "additive"]


class ModelConfig(Section):
    """The encoder-decoder, and its output layer."""

    kind: Literal["lstm"] = Field(default="lstm", description="the encoder-decoder")
    embedding_dim: int = Field(default=128, gt=0, description="numbers in an embedding row")
    hidden_size: int = Field(default=256, gt=0, multiple_of=2, description="units of the decoder LSTM; even")
    num_layers: int = Field(default=1, ge=1, description="LSTM layers of the encoder and of the decoder")
    encoder_layers: OptionalInt = Field(default=None, ge=1, description="those of the encoder; null: num_layers")
    decoder_layers: OptionalInt = Field(default=None, ge=1, description="those of the decoder; null: num_layers")
    layer_norm: bool = Field(default=False, description="normalise what each LSTM layer gives to the next")
    readout_size: OptionalInt = Field(
        default=None,
        gt=0,
        description="numbers of the state that the output layer reads; null: hidden_size, or with tie_embeddings "
        "embedding_dim",
    )
    dropout: float = Field(default=0.2, ge=0, lt=1, description="share of hidden units zeroed in training")
    embedding_dropout: OptionalFloat = Field(
        default=None, ge=0, lt=1, description="share of the numbers of embeddings zeroed in training; null: dropout"
    )
    source_word_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of source words whose embeddings are zeroed whole in training"
    )
    target_word_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="the same of the target words that the decoder reads"
    )
    variational_dropout: bool = Field(
        default=False, description="dropout zeroes the same units at all positions of a sentence"
    )
    attention: AttentionName = Field(
        default="dot", description="how the decoder looks at the source; none: the context vector alone"
    )
    lexical: bool = Field(
        default=False, description="the source words looked at also go to the output layer past the LSTMs"
    )
    output: Literal["auto", "replicated", "sharded", "sampled"] = Field(
        default="auto", description="output layer: on every rank, row-sharded, or sharded and trained on a sample"
    )
    output_samples: int = Field(default=4096, ge=1, description="candidates of a step; for output: sampled")
    tie_embeddings: bool = Field(default=False, description="target table and output layer are one sharded table")
    tie_source: bool = Field(default=False, description="source and target table are one; needs data.joint_vocabulary")
    scale_embeddings: bool = Field(
        default=False, description="multiply rows by the root of embedding_dim on their way in; for tie_embeddings"
    )
    input_feeding: bool = Field(default=False, description="feed the attention output into the next decoder step")

    @property
    def encoder_depth(self) -> int:
        """LSTM layers of the encoder."""
        return self.encoder_layers or self.num_layers

    @property
    def decoder_depth(self) -> int:
        """LSTM layers of the decoder."""
        return self.decoder_layers or self.num_layers

    @property
    def readout_dim(self) -> int:
        """Numbers of the state that the output layer reads."""
        return self.readout_size or (self.embedding_dim if self.tie_embeddings else self.hidden_size)


class EmbeddingConfig(Section):
    """The row-sharded tables and their optimizer."""

    layout: Literal["contiguous", "round_robin"] = Field(default="contiguous", description="which rank owns which row")
    transport: Literal["auto", "collective", "shared_memory"] = Field(
        default="auto",
        description="how rows travel; auto: through shared memory if all ranks share it, else by collectives",
    )
    num_embeddings: OptionalInt = Field(
        default=None, gt=0, description="rows of every table of tokens; null: one for each token of its vocabulary"
    )
    comm_dtype: Annotated[Literal["bf16", "fp16"] | None, BeforeValidator(none_from_text)] = Field(
        default=None, description="in which rows and gradients travel; null: as they are"
    )
    optimizer: Literal["sgd", "adagrad", "rowwise_adagrad", "sparse_adam", "rowwise_adam"] = Field(
        default="sparse_adam",
        description="optimizer of the tables; it touches only the rows that a batch used",
    )
    ngrams: Orders = Field(
        default=(),
        description="lengths of n-grams of source tokens that are looked up too, in one hashed table: [2, 3]; []: none",
    )
    ngram_rows: int = Field(default=1_000_000, ge=2, description="rows of the n-grams' table")
    ngram_dim: int = Field(default=64, gt=0, description="numbers in a row of the n-grams' table")
    ngram_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of n-grams left out in training")
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
