"""The translator that all contenders of train_bench.py train, and what each notes of its steps."""

import time
from dataclasses import replace

from common.devices import peak
from dist_s2s.distributed import Ranks
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import Vocabulary
from dist_s2s.translation.translator import Translator
from training.job import Job, Measurement


class Recorder:
    """Notes the steps of one rank, of which the first begins now; ``idle`` is its memory before anything was built."""

    def __init__(self, idle: int) -> None:
        self._found = Measurement(losses=[], norms=[], seconds=[], tokens=[], idle_bytes=[idle], peak_bytes=[])
        self._began = time.perf_counter()

    def add(self, loss: float, norm: float, tokens: int) -> None:
        """Note a step that ends now: its part of the loss, the norm of all gradients, target tokens of all ranks."""
        ended = time.perf_counter()
        self._found.seconds.append(ended - self._began)
        self._began = ended
        self._found.losses.append(loss)
        self._found.norms.append(norm)
        self._found.tokens.append(tokens)

    def finish(self, ranks: Ranks, translator: Translator, parts: dict[str, float] | None = None) -> Measurement:
        """Return all, with the peak when all ranks are through and none has let go of what they share (collective)."""
        ranks.together(lambda: None)
        self._found.peak_bytes.append(ranks.together(peak))
        return replace(self._found, parts=parts or {}, parameters=count_parameters(translator))


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
