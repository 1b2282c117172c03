"""Training on a stream: pairs are read a chunk at a time, counted, and then trained on in batches like an epoch's.

Protocol, for each chunk; all ranks take part in each line:

    1. wait      the first rank reads; every second or so all learn whether it has a chunk, or the end (a sum), and may
                 be told to stop
    2. text      the first rank checks the lines and sends them to all
    3. count     of W ranks, rank r cuts pairs r, r + W, … into tokens; all learn all lengths, and all counts
    4. admit     every rank updates its vocabularies with the same counts, and so gets the same ones
    5. rows      those of new words begin anew on their owners

Counting comes before training, so that a new word has its row when it is trained on for the first time, and no batch
that was made ahead holds an id that has changed its word. Batches are cut and shuffled as those of an epoch are, by
(seed, number of the chunk), and divided as those are; so nothing depends on the number of ranks.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from dist_s2s import UserError, counted
from dist_s2s.text.batches import collate, global_batches, shard_batch
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.inputs.block import Pair
from dist_s2s.text.pair_corpus import PairCorpus
from dist_s2s.text.stream import StreamReader, parse_pairs
from dist_s2s.text.vocabulary import EOS
from dist_s2s.training.events import ChunkBegin, StreamWait
from dist_s2s.training.new_words import begin_new_words
from dist_s2s.training.steps import Step
from dist_s2s.training.trainer import Trainer
from dist_s2s.training.word_counts import merge_counts

_SECONDS_BETWEEN_WAITS = 1.0


class StreamSteps:
    """What a trainer works on, chunk after chunk; ``trainer.next_steps`` for a stream. Making it is collective.

    Args:
        trainer: its ``progress`` says where in the stream it stands.
        stack: closes the stream.

    Raises:
        UserError: on all ranks, if the stream cannot be opened.
    """

    def __init__(self, trainer: Trainer, stack: ExitStack) -> None:
        self._trainer, self._data = trainer, trainer.config.data
        assert self._data.stream is not None
        path, progress = self._data.stream, trainer.progress
        progress.stream_ended = False  # there may be more than when it was saved

        def open_stream() -> StreamReader | None:
            if not trainer.ranks.is_first:
                return None
            return stack.enter_context(StreamReader(path, progress.stream_bytes, self._data.stream_wait))

        self._path, self._reader = path, trainer.ranks.together(open_stream)
        self._chunk: tuple[PairCorpus, Sequence[list[int]]] | None = None
        self._chunk_bytes = 0

    def __call__(self) -> Iterator[Step]:
        """Return the steps of the chunk at which training stands, or of the next one that has any (collective).

        None if the stream has ended, or training is interrupted meanwhile.
        """
        progress = self._trainer.progress
        if self._chunk is None and progress.stream_lines > 0:  # where a run goes on
            self._chunk = self._next_chunk(progress.stream_lines, is_counted=True)
        while self._chunk is None or progress.position >= len(self._chunk[1]):
            if self._chunk is not None:
                progress.next_chunk(self._chunk_bytes)
            self._chunk = self._next_chunk(self._data.vocabulary_update_every, is_counted=False)
            if self._chunk is None:
                return iter(())
        return self._steps(*self._chunk)

    def _steps(self, corpus: PairCorpus, batches: Sequence[list[int]]) -> Iterator[Step]:
        """Yield this rank's part of each batch of a chunk, from where training stands (local)."""
        trainer, ranks = self._trainer, self._trainer.ranks
        first, number = trainer.progress.position, trainer.progress.step
        for position in range(first, len(batches)):
            indices = shard_batch(batches[position], ranks.rank, ranks.world_size)
            target_tokens = int(corpus.lengths[batches[position], 1].sum()) + len(batches[position])
            batch = collate(corpus, indices, target_tokens).to(ranks.device)
            sample = trainer.translator.output.sample(batch.target_out, number + position - first)
            yield Step(batch, sample, next_epoch=0, next_position=position + 1)

    def _next_chunk(self, lines: int, is_counted: bool) -> tuple[PairCorpus, Sequence[list[int]]] | None:
        """Read so many lines, or what is left, and count their words if that was not done before (collective)."""
        trainer, progress = self._trainer, self._trainer.progress
        with trainer.paused():
            if not self._wait_for(lines):
                return None
            pairs = self._shared_pairs(lines)
            if not pairs and not is_counted:
                progress.stream_ended = True
                return None
            if is_counted and len(pairs) < lines:
                raise UserError(
                    f"the stream {self._path} is shorter than it was: "
                    f"{counted(lines - len(pairs), 'line is', 'lines are')} gone"
                )
            progress.stream_lines = len(pairs)
            corpus, counts = self._count(pairs)
            if not is_counted:
                self._update_vocabularies(*counts, len(pairs), len(corpus))
        settings = trainer.config.training.seed, progress.stream_chunk
        return corpus, global_batches(corpus, self._data.batch_tokens, *settings)

    def _wait_for(self, lines: int) -> bool:
        """Wait for lines or the stream's end; False if training is to end meanwhile."""
        trainer, reader = self._trainer, self._reader
        while trainer.end_reason is None:
            mine = trainer.ranks.together(lambda: reader is not None and reader.has(lines, _SECONDS_BETWEEN_WAITS))
            if trainer.ranks.sum([mine])[0] > 0:
                return True
            trainer.tell(StreamWait())
        return False

    def _shared_pairs(self, lines: int) -> list[Pair]:
        """Return the pairs of the next lines, on all ranks, and note how long the lines are."""
        ranks, first = self._trainer.ranks, self._trainer.progress.stream_lines_before + 1

        def read() -> str:
            if self._reader is None:
                return ""
            raw = self._reader.take(lines)
            pairs = parse_pairs(raw, self._path, first)
            return "\n".join([str(sum(map(len, raw))), *("\t".join(pair) for pair in pairs)])

        length, *texts = ranks.share(ranks.together(read).encode()).decode().split("\n")
        self._chunk_bytes = int(length)
        return [(source, target) for source, target in (text.split("\t") for text in texts)]

    def _count(self, pairs: list[Pair]) -> tuple[PairCorpus, tuple[dict[str, int], dict[str, int]]]:
        """Return the pairs that are trained on, and how often each word occurs in them on either side."""
        ranks, translator = self._trainer.ranks, self._trainer.translator
        source, target = translator.source, translator.target
        mine = pairs[ranks.rank :: ranks.world_size]
        cut = [side.cut(pair[column] for pair in mine) for column, side in enumerate((source, target))]
        lengths = torch.empty(len(pairs), 2, dtype=torch.int64)
        lengths_here = np.stack([texts.lengths() for texts in cut], axis=1)
        for rank, numbers in enumerate(ranks.gather_numbers(lengths_here.ravel().tolist())):
            lengths[rank :: ranks.world_size] = torch.tensor(numbers, dtype=torch.int64).reshape(-1, 2)
        is_kept = self._is_kept(lengths)
        kept = is_kept.nonzero()[:, 0].tolist()
        chosen = is_kept[ranks.rank :: ranks.world_size].numpy()
        counts = [merge_counts(texts.counts(chosen), ranks) for texts in cut]
        corpus = PairCorpus([pairs[number] for number in kept], lengths[kept], source, target)
        return corpus, (counts[0], counts[1])

    def _is_kept(self, lengths_N2: Tensor) -> Tensor:
        return ((lengths_N2 > 0) & (lengths_N2 <= self._data.max_length)).all(dim=1)

    def _update_vocabularies(self, source: dict[str, int], target: dict[str, int], pairs: int, kept: int) -> None:
        """Admit words, let their rows begin anew, and tell the listeners."""
        trainer, translator, progress = self._trainer, self._trainer.translator, self._trainer.progress
        vocabularies = translator.source.vocabulary, translator.target.vocabulary
        assert isinstance(vocabularies[0], DynamicVocabulary)
        assert isinstance(vocabularies[1], DynamicVocabulary)
        new_source, new_target = vocabularies[0].update(source), vocabularies[1].update(target)
        if progress.step > 0:
            begin_new_words(translator, trainer.state, new_source, new_target, self._data.new_words)
        else:  # nothing has been trained, and the bias begins with the frequencies of all words
            frequencies = torch.from_numpy(vocabularies[1].counts).clone()
            frequencies[EOS] = kept
            translator.output.start_from(frequencies)
        trainer.tell(ChunkBegin(progress.step, progress.stream_chunk, pairs, pairs - kept, new_source, new_target))
