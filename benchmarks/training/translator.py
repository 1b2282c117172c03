"""The translator that all contenders of train_bench.py train, and what each notes of its steps."""

import time
from dataclasses import dataclass

from common.devices import peak
from dist_s2s.distributed import Ranks
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import Vocabulary
from dist_s2s.translation.translator import Translator
from training.job import Job


@dataclass(frozen=True)
class Record:
    """A step of this rank: its part of the loss, the norm of all gradients, target tokens of all ranks, and its end."""

    loss: float
    norm: float
    tokens: int
    end: float


class Records(list[Record]):
    """Of all steps of a run, which began at ``start``; ``peak_bytes`` is the most memory that this process took."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.peak_bytes = time.perf_counter(), 0

    def add(self, loss: float, norm: float, tokens: int) -> None:
        """Note a step that ends now."""
        self.append(Record(loss, norm, tokens, time.perf_counter()))

    def finish(self, ranks: Ranks) -> None:
        """Note the peak, when all ranks are through and none has let go of what they share (collective)."""
        ranks.together(lambda: None)
        self.peak_bytes = ranks.together(peak)


class NumberedVocabulary(Vocabulary):
    """A number of ids without texts, which would take more memory than some tables; enough to build a translator."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def build_translator(job: Job, ranks: Ranks) -> Translator:
    """Build the translator of the job's configuration on ``ranks`` (collective); on one rank its tables are whole."""
    tokenizer = WhitespaceTokenizer()
    source, target = (TextSide(tokenizer, NumberedVocabulary(size)) for size in job.vocabulary_sizes)
    return Translator(job.config, source, target, ranks)


def count_parameters(translator: Translator) -> dict[str, int]:
    """Count by part of the model; the translator's tables are whole, or sharded among ranks."""
    core = translator.core
    sizes = {name: table.num_embeddings * table.embedding_dim for name, table in translator.tables.items()}
    output = sum(size for name, size in sizes.items() if name.startswith("output"))
    return {
        "source embedding": sizes["source_table"],
        "target embedding": sizes["target_table"],
        "encoder": sum(weight.numel() for weight in core.encoder.parameters()),
        "decoder": sum(weight.numel() for weight in core.decoder.parameters()),
        "output layer": output + sum(weight.numel() for weight in core.output.parameters()),
    }
