"""A translator: tokenizers, vocabularies, two sharded tables and the replicated core, as a configuration says."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.models import Seq2Seq, beam_search, greedy_search
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.storage.checkpoint import list_checkpoints, load_weights, read_manifest
from dist_s2s.storage.run_directory import CONFIG
from dist_s2s.text.batches import Batch, evaluation_batches
from dist_s2s.text.corpus import Example
from dist_s2s.text.vocabulary import EOS, PAD, SOS, Vocabulary
from dist_s2s.translation.output import OutputLayer, ReplicatedOutput, SampledOutput, ShardedOutput
from dist_s2s.translation.text_side import TextPipeline

SENTENCES_PER_BATCH = 64  # a rank
_COMM_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Translator:
    """The model of one run, on one rank of those that share its tables."""

    def __init__(self, config: Config, text: TextPipeline, ranks: Ranks) -> None:
        """Builds the tables (collective) and the core, both from ``training.seed``: the same at every world size."""
        self.text = text
        self.ranks = ranks
        self._precision = config.training.precision
        torch.manual_seed(config.training.seed)
        self.source_table = self._make_table(config, text.source_vocabulary, config.model.embedding_dim)
        tied_std = config.model.hidden_size**-0.5 if config.model.tie_embeddings else 1.0  # its other use is as output
        self.target_table = self._make_table(
            config, text.target_vocabulary, config.model.embedding_dim, init_std=tied_std
        )
        self.output = self._make_output(config)
        self.core = Seq2Seq(
            output=self.output.layer,
            embedding_dim=config.model.embedding_dim,
            hidden_size=config.model.hidden_size,
            num_layers=config.model.num_layers,
            dropout=config.model.dropout,
            attention=config.model.attention,
            input_feeding=config.model.input_feeding,
        ).to(device=ranks.device, dtype=self._dtype)

    @property
    def tables(self) -> Mapping[str, DistributedEmbedding]:
        """The sharded tables by the name they have in checkpoints; each once, also if it has two uses."""
        own = {"source_table": self.source_table, "target_table": self.target_table}
        return own | {name: table for name, table in self.output.tables.items() if table is not self.target_table}

    def autocast(self) -> torch.autocast:
        """Where the output layer computes, as accelerate does for the core."""
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self._precision == "bf16")

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self._precision == "fp64" else torch.float32

    def _make_table(
        self, config: Config, vocabulary: Vocabulary, dim: int, padding_idx: int | None = PAD, init_std: float = 1.0
    ) -> DistributedEmbedding:
        embedding = config.embedding
        try:
            return DistributedEmbedding(
                embedding.num_embeddings or len(vocabulary),
                dim,
                padding_idx,
                layout=embedding.layout,
                transport=embedding.transport,
                comm_dtype=None if embedding.comm_dtype is None else _COMM_DTYPES[embedding.comm_dtype],
                init_std=init_std,
                process_group=self.ranks.group,
                device=self.ranks.device,
                dtype=self._dtype,
            )
        except ValueError as error:  # on every rank: of a transport that cannot be had here
            raise UserError(f"the tables cannot be built: {error}") from None

    def _make_output(self, config: Config) -> OutputLayer:
        """The layer that ``model.output`` names, which is no longer ``auto`` (collective if it is sharded)."""
        model, vocabulary = config.model, self.text.target_vocabulary
        num_classes, smoothing = len(vocabulary), config.training.label_smoothing
        if model.output == "replicated":
            return ReplicatedOutput(model.hidden_size, num_classes, smoothing)
        table = self.target_table
        if not model.tie_embeddings:
            table = self._make_table(config, vocabulary, model.hidden_size, None, model.hidden_size**-0.5)
        bias = self._make_table(config, vocabulary, 1, None, init_std=0.0)
        if model.output == "sharded":
            return ShardedOutput(table, bias, num_classes, smoothing)
        assert model.output == "sampled", model.output
        return SampledOutput(table, bias, num_classes, smoothing, model.output_samples, config.training.seed)

    def translate(self, sentences: Sequence[str], beam_size: int = 1) -> list[str]:
        """Translations of ``sentences``, on every rank (collective; all ranks give the same sentences).

        Each rank translates its share, without autocast, greedily or with a beam. A sentence without a token gives "".
        """
        sources = [self.text.source_vocabulary.encode(self.text.source_tokenizer.tokenize(line)) for line in sentences]
        examples = [Example(source, []) for source in sources if source]
        was_training = self.core.training
        self.core.eval()
        mine: list[int] = []
        for index, ids in self._search(examples, beam_size):
            mine += [index, len(ids), *ids]
        self.core.train(was_training)
        found: dict[int, list[int]] = {}
        for numbers in self.ranks.gather_numbers(mine):
            stream = iter(numbers)
            for index in stream:
                found[index] = list(islice(stream, next(stream)))
        results = iter(found[index] for index in range(len(examples)))
        vocabulary, tokenizer = self.text.target_vocabulary, self.text.target_tokenizer
        return [tokenizer.detokenize(vocabulary.decode(next(results))) if source else "" for source in sources]

    def _search(self, examples: list[Example], beam_size: int) -> Iterator[tuple[int, list[int]]]:
        """This rank's share: (number of the example, target ids)."""
        ranks = self.ranks
        for batch in evaluation_batches(examples, SENTENCES_PER_BATCH, ranks.rank, ranks.world_size):
            results = self._search_batch(batch.to(ranks.device), beam_size)
            yield from zip(batch.indices, results, strict=False)  # a row that counts for nothing has no index

    @torch.no_grad()
    def _search_batch(self, batch: Batch, beam_size: int) -> list[list[int]]:
        limits = 2 * batch.source_lengths + 10
        if not batch.indices:  # the row of a rank that has no sentence: it only joins the others' lookups
            limits = torch.zeros_like(limits)
        search = greedy_search if beam_size == 1 else partial(beam_search, beam_size=beam_size)
        return search(
            self.core,
            self.source_table(batch.source),
            batch.source_lengths,
            embed=self.target_table,
            best_tokens=self.output.best_tokens,
            start_id=SOS,
            end_id=EOS,
            max_lengths_B=limits,
            all_finished=self.ranks.all_agree,
        )


def load_translator(run_dir: Path, ranks: Ranks) -> Translator:
    """The best checkpoint of a run, its rows spread over ``ranks`` (collective). Raises UserError if there is none."""

    def read() -> tuple[Config, TextPipeline, Path]:
        if not (run_dir / CONFIG).is_file():
            raise UserError(f"{run_dir} is not a run directory: it has no {CONFIG}")
        config = load_config(run_dir / CONFIG, {})
        checkpoint = best_checkpoint(run_dir)
        if checkpoint is None:
            raise UserError(f"{run_dir} has no checkpoint yet; train first, or wait for the first one")
        return config, TextPipeline.load(config, run_dir), checkpoint

    config, text, checkpoint = ranks.together(read)
    translator = Translator(config, text, ranks)
    ranks.together(lambda: load_weights(checkpoint, translator.core, translator.tables))
    translator.core.eval()
    return translator


def best_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint with the best validation BLEU, or the newest if none was validated; None without any."""
    found = list_checkpoints(run_dir / "checkpoints")
    if not found:
        return None
    best = found[-1].with_name(f"step-{read_manifest(found[-1])['progress'].get('best_step')}")
    return best if best in found else found[-1]
