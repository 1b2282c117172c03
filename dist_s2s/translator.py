"""A translator: tokenizers, vocabularies, two sharded tables and the replicated core, as a configuration says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from dist_s2s.checkpoint import list_checkpoints, load_weights, read_manifest
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.errors import UserError
from dist_s2s.run_directory import CONFIG
from dist_s2s.seq2seq import Seq2Seq, beam_search, greedy_search
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.text.batches import Batch, evaluation_batches
from dist_s2s.text.corpus import Example
from dist_s2s.text.tokenizers import Tokenizer, make_tokenizer
from dist_s2s.text.vocabulary import EOS, PAD, SOS, UNK, Vocabulary

SENTENCES_PER_BATCH = 64  # a rank


@dataclass(frozen=True)
class TextPipeline:
    """From sentences to ids and back."""

    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary

    def save(self, run_dir: Path) -> None:
        """Writes both vocabularies into the run directory."""
        self.source_vocabulary.save(run_dir / "source_vocabulary.txt")
        self.target_vocabulary.save(run_dir / "target_vocabulary.txt")

    @classmethod
    def load(cls, config: Config, run_dir: Path) -> "TextPipeline":
        """Reads both vocabularies of a run."""
        return cls(
            make_tokenizer(config.data.source_tokenizer),
            make_tokenizer(config.data.target_tokenizer),
            Vocabulary.load(run_dir / "source_vocabulary.txt"),
            Vocabulary.load(run_dir / "target_vocabulary.txt"),
        )


class Translator:
    """The model of one run, on one rank of those that share its tables."""

    def __init__(self, config: Config, text: TextPipeline, ranks: Ranks) -> None:
        """Builds the tables (collective) and the core, both from ``training.seed``: the same at every world size."""
        self.text = text
        self.ranks = ranks
        dtype = torch.float64 if config.training.precision == "fp64" else torch.float32
        torch.manual_seed(config.training.seed)
        self.core = Seq2Seq(
            target_vocabulary_size=len(text.target_vocabulary),
            embedding_dim=config.model.embedding_dim,
            hidden_size=config.model.hidden_size,
            num_layers=config.model.num_layers,
            dropout=config.model.dropout,
            attention=config.model.attention,
            input_feeding=config.model.input_feeding,
        ).to(device=ranks.device, dtype=dtype)

        def make_table(vocabulary: Vocabulary) -> DistributedEmbedding:
            return DistributedEmbedding(
                len(vocabulary),
                config.model.embedding_dim,
                padding_idx=PAD,
                layout=config.embedding.layout,
                process_group=ranks.group,
                device=ranks.device,
                dtype=dtype,
            )

        self.source_table = make_table(text.source_vocabulary)
        self.target_table = make_table(text.target_vocabulary)

    @property
    def tables(self) -> Mapping[str, DistributedEmbedding]:
        """The sharded tables by the name they have in checkpoints."""
        return {"source_table": self.source_table, "target_table": self.target_table}

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
            start_id=SOS,
            end_id=EOS,
            max_lengths_B=limits,
            forbidden=[PAD, SOS, UNK],
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
