"""Subwords, learnt from text by SentencePiece (Kudo & Richardson 2018, https://arxiv.org/abs/1808.06226)."""

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Literal

from dist_s2s import UserError
from dist_s2s.text.extras import extra
from dist_s2s.text.tokenizers.spaces import SPACE, SPACE_LOOKALIKE
from dist_s2s.text.vocabulary import SPECIALS

SubwordKind = Literal["bpe", "unigram"]
MOST_SENTENCES = 500_000  # to learn from; more take longer and change little
_COVERAGE = 0.9995  # of the characters of a text; the rest is spelled in bytes
_BYTES = 256
# Threads sum up in an order of their own, so that their number is part of what the result depends on.
_THREADS = 4


class SubwordTokenizer:
    """Frequent words are tokens, rare ones several; a token holds `SPACE` where the text has a space.

    The numbers that SentencePiece gives its tokens are those of a Vocabulary of `pieces`. A `SPACE` in the text itself
    is read as `SPACE_LOOKALIKE`.

    Args:
        model: a SentencePiece model, as `train` returns it.

    Raises:
        UserError: SentencePiece is not installed.
        ValueError: `model` is not such a model.
    """

    cuts_at_spaces = True  # no subword has a space but at its beginning

    def __init__(self, model: bytes) -> None:
        self.model = model
        try:
            if not model:
                raise RuntimeError
            self._processor = sentencepiece().SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise ValueError("is not a SentencePiece model") from None

    @property
    def pieces(self) -> list[str]:
        """All tokens in the order of their numbers: the specials, the tags, with byte fallback bytes, subwords."""
        return [self._processor.id_to_piece(number) for number in range(len(self._processor))]

    def tokenize(self, text: str) -> list[str]:
        """Return the subwords."""
        pieces: list[str] = self._processor.encode(_plain(text), out_type=str, num_threads=1)
        return pieces

    def encode_all(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the numbers of each text's tokens."""
        numbers: list[list[int]] = self._processor.encode(list(map(_plain, texts)), num_threads=1)
        return numbers

    def resample(self, numbers: list[int], dropout: float, seed: int) -> list[int]:
        """Cut a sentence of a BPE model anew, skipping each merge with a probability; the same for the same seed.

        Args:
            numbers: of the sentence's tokens, from `encode_all`; all are known.
            dropout: the probability.
            seed: at least 0 and less than 2^32.
        """
        sentencepiece().set_random_generator_seed(seed)
        text = self._processor.decode(numbers)
        drawn: list[int] = self._processor.encode(text, enable_sampling=True, alpha=dropout, nbest_size=-1)
        return drawn

    def detokenize(self, tokens: list[str]) -> str:
        """Join the tokens; bytes that spell no character become U+FFFD."""
        text: str = self._processor.decode_pieces(tokens)
        return text


def train(
    sentences: Iterable[str], kind: SubwordKind, size: int | None, byte_fallback: bool, tags: Sequence[str]
) -> bytes:
    """Learn subwords, and return them as a SentencePiece model: the same for the same sentences on the same machine.

    Args:
        sentences: normalized text.
        kind: bpe (Sennrich et al. 2016) or unigram (Kudo 2018).
        size: most tokens, specials, tags, bytes and single characters included; fewer if the text has no more. None:
            12 · √sentences subwords beside those.
        byte_fallback: spell characters that are too rare for a token of their own in bytes, so that none is unknown.
        tags: tokens that text never contains.

    Raises:
        UserError: SentencePiece is not installed, `size` has no room for the single characters, or there is no text.
    """
    texts = [_plain(sentence) for sentence in sentences]
    coverage = _COVERAGE if byte_fallback else 1.0
    least = len(SPECIALS) + len(tags) + byte_fallback * _BYTES + _count_characters(texts, coverage)
    if size is None:
        size = least + round(12 * math.sqrt(len(texts)))
    if size < least:
        bytes_too = f"{_BYTES} bytes and " if byte_fallback else ""
        raise UserError(
            f"the vocabulary size is {size:,}, but subwords need at least {least:,} for the special tokens, "
            f"{bytes_too}single characters; give more, or null"
        )
    model = io.BytesIO()
    try:
        sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=coverage,
            byte_fallback=byte_fallback,
            normalization_rule_name="identity",
            num_threads=_THREADS,
            control_symbols=list(tags),
            unk_surface=SPECIALS[3],
            minloglevel=2,
            **{f"{name}_id": number for number, name in enumerate(_NAMES)},
            **{f"{name}_piece": special for name, special in zip(_NAMES, SPECIALS, strict=True)},
        )
    except RuntimeError as error:
        raise UserError(f"SentencePiece cannot learn subwords from these {len(texts):,} sentences: {error}") from None
    return model.getvalue()


_NAMES = ("pad", "bos", "eos", "unk")  # SentencePiece's, for SPECIALS


def _plain(text: str) -> str:
    return text.replace(SPACE, SPACE_LOOKALIKE)


def _count_characters(texts: Iterable[str], coverage: float) -> int:
    """Count the characters that SentencePiece keeps: the most frequent ones, up to this share of the text."""
    counts: Counter[str] = Counter(SPACE)
    for text in texts:
        counts.update(text.replace(" ", SPACE) + SPACE)
    left = coverage * counts.total()
    for number, (_, count) in enumerate(counts.most_common(), start=1):
        left -= count
        if left <= 0:
            return number
    return len(counts)


def sentencepiece() -> ModuleType:
    """Import SentencePiece.

    Raises:
        UserError: it is not installed.
    """
    return extra("sentencepiece", "subwords", "cutting text into subwords")
