"""A translator: text on both sides, sharded tables, the replicated model and its output layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.models import Demand, Hypothesis
from dist_s2s.sharded import DistributedEmbedding, lookup
from dist_s2s.text.batches import Batch
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.long_sentences import cut_sentence
from dist_s2s.text.side import TextSide
from dist_s2s.translation.batching import Batching
from dist_s2s.translation.model import make_model
from dist_s2s.translation.output.make import make_output
from dist_s2s.translation.predictor import Predictor, ensemble, member_of
from dist_s2s.translation.search.finding import find
from dist_s2s.translation.search.joining import Translation, join_pieces
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.search.sampling import join_drawn
from dist_s2s.translation.search.shortlist import Shortlist, listed_model
from dist_s2s.translation.search.terms import Terms, demands_of
from dist_s2s.translation.tables.int8_table import as_numbers, row_dim
from dist_s2s.translation.tables.make import make_table, parameter_dtype
from dist_s2s.translation.tables.source_rows import SourceRows


class Translator:
    """The model of one run, on one rank of those that share its tables.

    Args:
        config: the run's; ``model.output`` is no longer ``auto``.
        source, target: how text becomes ids, and ids text.
        ranks: those that share the tables. All must build the translator (collective); tables and model come from
            ``training.seed``, and are the same at every world size.
        quantized: tables are of int8, and the model is on the meta device, until ``load_quantized`` fills both.

    Attributes:
        batching: how much is worked on at a time; may be set.
        shortlist: what searches choose from, unless there are others; None, as it begins: from all tokens; may be set.
        others: translators of the same vocabularies and ranks that predict together with this one; may be set.
    """

    def __init__(
        self, config: Config, source: TextSide, target: TextSide, ranks: Ranks, quantized: bool = False
    ) -> None:
        self.config, self.source, self.target, self.ranks = config, source, target, ranks
        self._precision, self.batching = config.training.precision, Batching.of(config)
        self.shortlist: Shortlist | None = None
        self.others: Sequence[Translator] = ()
        torch.manual_seed(config.training.seed)
        num_classes, model = target.vocabulary.num_ids, config.model
        small = model.embedding_dim**-0.5  # for rows that are multiplied by its inverse, or used as output too
        source_std = small if model.scale_embeddings else 1.0
        target_std = small if model.scale_embeddings or model.tie_embeddings else 1.0
        source_table = None
        if not model.tie_source:
            num_ids = source.vocabulary.num_ids
            source_table = make_table(
                config, num_ids, model.embedding_dim, ranks, init_std=source_std, quantized=quantized
            )
        self.target_table = make_table(
            config, num_classes, model.embedding_dim, ranks, init_std=target_std, quantized=quantized
        )
        self.source_table = self.target_table if source_table is None else source_table
        device = torch.device("meta") if quantized else ranks.device
        with torch.device("meta") if quantized else nullcontext():
            self.output = make_output(config, num_classes, self.target_table, ranks)
            self.core = make_model(config, self.output.layer).to(device=device, dtype=parameter_dtype(config))
        self._core_numbers = sum(parameter.numel() for parameter in self.core.parameters())  # int8 layers have none
        self.source_rows = SourceRows(config, self.source_table, source.vocabulary, ranks, quantized)

    @property
    def tables(self) -> Mapping[str, DistributedEmbedding]:
        """The sharded tables by the name they have in checkpoints; each once, even if it has two uses."""
        own = {"source_table": self.source_table, "target_table": self.target_table}
        if self.source_table is self.target_table:
            del own["source_table"]
        output = {name: table for name, table in self.output.tables.items() if table is not self.target_table}
        return own | output | self.source_rows.named_tables

    @property
    def num_parameters(self) -> int:
        """How many numbers the model has, on all ranks together: int8 ones count as those they stand for."""
        return self._core_numbers + sum(table.num_embeddings * row_dim(table) for table in self.tables.values())

    @property
    def predictor(self) -> Predictor:
        """What translations are found and scored with: this translator, or with others their ensemble."""
        listed = None if self.shortlist is None else partial(listed_model, self.core, self.output, self.shortlist)
        unused = range(len(self.target.vocabulary), self.target.vocabulary.num_ids)
        alone = Predictor(self.core, self.source_rows, self.target_table, self.rows, self.output, listed, unused)
        if not self.others:
            return alone
        predictors = [alone, *(each.predictor for each in self.others)]
        members = [member_of(each.config, each.core, each.output, self.target) for each in (self, *self.others)]
        return ensemble(members, predictors)

    def changing_files(self) -> dict[str, bytes]:
        """Return the files of both sides if their vocabularies change, so that each checkpoint needs its own."""
        sides = {"source": self.source, "target": self.target}
        dynamic = {name: side for name, side in sides.items() if isinstance(side.vocabulary, DynamicVocabulary)}
        return {file: content for name, side in dynamic.items() for file, content in side.files(name).items()}

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Look up what the model reads of a batch's source, and its ``target_in``, in one exchange (collective)."""
        tables, ids = [*self.source_rows.tables, self.target_table], [*self.source_rows.ids(batch), batch.target_in]
        *source, target = lookup(tables, ids)
        return self.source_rows.join(source), as_numbers(self.target_table, target)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model and its output layer compute losses."""
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self._precision == "bf16")

    def decoder_states(self, model: nn.Module, batch: Batch, source_BSE: Tensor, target_BTE: Tensor) -> Tensor:
        """Return the states [B, T, H] that the output layer is applied to, with teacher forcing.

        Args:
            model: ``self.core``, or what wraps it.
            source_BSE, target_BTE: what ``source_rows`` returns, and the rows of the batch's target tokens.
        """
        with self.autocast():
            states: Tensor = model(source_BSE, batch.source_lengths, target_BTE, apply_output=False)
        return states.to(source_BSE.dtype)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within: no dropout; afterwards models are in the mode that they were in, also after an error."""
        cores = [each.core for each in (self, *self.others)]
        were_training = [core.training for core in cores]
        for core in cores:
            core.eval()
        try:
            yield
        finally:
            for core, was_training in zip(cores, were_training, strict=True):
                core.train(was_training)

    def translate(
        self,
        sentences: Sequence[str],
        options: SearchOptions | None = None,
        after_batch: Callable[[], None] = lambda: None,
        n_best: int = 1,
        prefixes: Sequence[Sequence[int]] | None = None,
        terms: Terms | None = None,
    ) -> list[Translation]:
        """Return the best translations of each sentence, on every rank (collective); see ``search_n_best``.

        A sentence of more than ``batching.max_source_tokens`` is translated in pieces. Of samples there are as many as
        the options say, in their order, but one of a sentence without a token; or the one with the least risk.

        Args:
            prefixes: of each sentence, the target ids that its translation begins with.
            terms: phrases that translations contain; one without enough length or beam may lack them.
        """
        cut, sources = self.cut(sentences)
        demands = [demand for some in demands_of(cut, prefixes, terms, self.source) for demand in some]
        sampling = None if options is None else options.sampling
        count = n_best if sampling is None else sampling.options.num_samples
        found = iter(self._search_sources(sources, count, options, after_batch, demands))
        parts = [(pieces, list(islice(found, len(pieces)))) for pieces in cut]
        if sampling is not None:
            return join_drawn(parts, self.target, sampling, self.ranks)
        return [join_pieces(*each, n_best, self.target) for each in parts]

    def cut(self, sentences: Sequence[str]) -> tuple[list[list[str]], list[list[int]]]:
        """Return the pieces that each sentence is translated in, itself unless it is long, and all pieces' ids."""
        cut, sources = list[list[str]](), list[list[int]]()
        for sentence, source in zip(sentences, self.source.encode_all(sentences), strict=True):
            is_long = len(source) > self.batching.max_source_tokens
            cut.append(cut_sentence(sentence, self.source, self.batching.max_source_tokens) if is_long else [sentence])
            sources += self.source.encode_all(cut[-1]) if is_long else [source]
        return cut, sources

    def search(
        self,
        sentences: Sequence[str],
        options: SearchOptions | None = None,
        after_batch: Callable[[], None] = lambda: None,
    ) -> list[Hypothesis]:
        """Return the best hypothesis for each sentence, on every rank (collective); see ``search_n_best``."""
        return [best for best, *_ in self.search_n_best(sentences, 1, options, after_batch)]

    def search_n_best(
        self,
        sentences: Sequence[str],
        n_best: int,
        options: SearchOptions | None = None,
        after_batch: Callable[[], None] = lambda: None,
        demands: Sequence[Demand] | None = None,
    ) -> list[list[Hypothesis]]:
        """Return for each sentence its hypotheses, the best first, on every rank (collective).

        All ranks give the same sentences, and each searches for its share, without autocast. A sentence is searched for
        as a whole, however long. One without a token gets a hypothesis without one.

        Args:
            sentences: text.
            n_best: hypotheses of a sentence; fewer where the search has found fewer, and never more than its beam size.
                Of samples the first, in their order.
            options: how to search; None: greedily, up to the lengths of the run's configuration.
            after_batch: called after each batch, on every rank equally often; may call collectives.
            demands: of each sentence; that of one without a token counts for nothing.

        Raises:
            UserError: on every rank, for options that do not fit the model.
        """
        return self._search_sources(self.source.encode_all(sentences), n_best, options, after_batch, demands or ())

    def _search_sources(
        self,
        sources: Sequence[list[int]],
        n_best: int,
        options: SearchOptions | None,
        after_batch: Callable[[], None],
        demands: Sequence[Demand],
    ) -> list[list[Hypothesis]]:
        """Return what ``search_n_best`` does, of sentences' token ids (collective)."""
        options = SearchOptions.of(self.config) if options is None else options
        options.check(self, *self.others)
        examples = ExampleList(Example(source, []) for source in sources if source)
        some = demands if any(demand.size for demand in demands) else ()
        wanted = [demand for demand, source in zip(some, sources, strict=False) if source]
        mine: list[tuple[int, list[tuple[list[int], float, bool]]]] = []
        with self.evaluating():
            parts = find(self.predictor, examples, wanted, options, n_best, self.batching, self.ranks, after_batch)
            for number, found in parts:
                mine.append((number, [(each.ids, each.score, each.is_cut) for each in found]))
        by_number = self.ranks.gather_by_number(mine)
        found_B = iter([[Hypothesis(*values) for values in by_number[number]] for number in range(len(examples))])
        return [next(found_B) if source else [Hypothesis([], 0.0)] for source in sources]
