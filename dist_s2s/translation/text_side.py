"""Between text and ids."""

from dataclasses import dataclass
from pathlib import Path

from dist_s2s.config import Config
from dist_s2s.text.tokenizers import Tokenizer, make_tokenizer
from dist_s2s.text.vocabulary import Vocabulary


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
