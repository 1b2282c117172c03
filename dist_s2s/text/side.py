"""One side of a translation: between its text and token ids."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Literal, Self

import numpy as np

from dist_s2s import UserError
from dist_s2s.text.cut_texts import CutTexts
from dist_s2s.text.dynamic_vocabulary import load_vocabulary
from dist_s2s.text.normalization import Normalization, normalize
from dist_s2s.text.segmentation import Segmentation, detect, undo
from dist_s2s.text.tokenizers import SubwordTokenizer, Tokenizer, TokenizerName, make_tokenizer
from dist_s2s.text.tokenizers.subwords import train
from dist_s2s.text.vocabulary import SPECIALS, UNK, Vocabulary

_TEXTS_AT_A_TIME = 50_000


@dataclass(frozen=True)
class SideSettings:
    """What a side is built from, beside its sentences.

    Attributes:
        tokenizer: its name.
        max_size: most tokens of the vocabulary, specials included; None for no limit, or of subwords as many as fit
            the text, see `subwords.train`.
        min_frequency: rarer tokens are left out, except subwords.
        normalization: the Unicode form of the text.
        byte_fallback: of subwords, see `subwords.train`.
        tags: tokens of the vocabulary that no text spells.
        reads_tags: whether tags are read at the beginning of a sentence.
        segmentation: how the text was cut into subwords before, which is undone for readers; auto: as its tokens tell.
        joint: whether both sides have the tokens of both.
    """

    tokenizer: TokenizerName
    max_size: int | None = None
    min_frequency: int = 1
    normalization: Normalization = "NFC"
    byte_fallback: bool = True
    tags: tuple[str, ...] = ()
    reads_tags: bool = True
    segmentation: Literal["auto"] | Segmentation = "auto"
    joint: bool = False


@dataclass(frozen=True)
class TextSide:
    """A tokenizer with its vocabulary, and what is done to the text before and after.

    Attributes:
        normalization, reads_tags: see SideSettings.
        segmentation: what `decode` and `readable` undo.
    """

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    normalization: Normalization = "NFC"
    reads_tags: bool = True
    segmentation: Segmentation = "none"

    @classmethod
    def build(cls, settings: SideSettings, sentences: Iterable[str]) -> Self:
        """Make the tokenizer and build the vocabulary, or learn both, from `sentences`.

        Raises:
            UserError: as `Vocabulary.build` and `subwords.train`; or there is no token.
        """
        tags, form = settings.tags, settings.normalization
        if tags:
            sentences = (_cut_tags(normalize(sentence, form), tags)[1] for sentence in sentences)
        if settings.tokenizer in ("bpe", "unigram"):
            texts = (normalize(sentence, form) for sentence in sentences)
            model = train(texts, settings.tokenizer, settings.max_size, settings.byte_fallback, tags)
            subwords = SubwordTokenizer(model)
            return cls.of(settings, subwords, Vocabulary(subwords.pieces, tags))
        tokenizer = make_tokenizer(settings.tokenizer)
        counts = _count_tokens(cls.of(settings, tokenizer, Vocabulary([*SPECIALS, *tags], tags)), sentences)
        return cls.of(
            settings, tokenizer, Vocabulary.of_counts(counts, settings.max_size, settings.min_frequency, tags)
        )

    @classmethod
    def of(cls, settings: SideSettings, tokenizer: Tokenizer, vocabulary: Vocabulary) -> Self:
        """Return the side of these settings that has this tokenizer and vocabulary."""
        segmentation = settings.segmentation
        if segmentation == "auto":
            segmentation = detect(vocabulary.tokens) if settings.tokenizer == "whitespace" else "none"
        return cls(tokenizer, vocabulary, settings.normalization, settings.reads_tags, segmentation)

    def extended(self, other: "TextSide") -> "TextSide":
        """Return this side with those tokens of another after its own that it does not have."""
        new = [token for token in other.vocabulary.tokens if token in other.vocabulary and token not in self.vocabulary]
        return replace(self, vocabulary=Vocabulary([*self.vocabulary.tokens, *new], self.vocabulary.tags))

    def cut(self, texts: Iterable[str]) -> CutTexts[str]:
        """Return the tokens of sentences, whether the vocabulary has them or not; not for subwords or tags."""
        return CutTexts.of(
            texts,
            self.tokenizer.cuts_at_spaces,
            lambda words: [self.tokenizer.tokenize(normalize(word, self.normalization)) for word in words],
        )

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a sentence, without SOS and EOS."""
        head: list[int] = []
        if self.vocabulary.tags and self.reads_tags:
            head, text = _cut_tags(normalize(text, self.normalization), self.vocabulary.tags)
        words = text.split() if self.tokenizer.cuts_at_spaces else [text]
        return [*head, *chain.from_iterable(self._encode_words(words))]

    def without_tags(self, text: str) -> str:
        """Return what follows the tags at the beginning of a sentence that is in the side's Unicode form."""
        return _cut_tags(text, self.vocabulary.tags if self.reads_tags else ())[1]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each sentence, without SOS and EOS; much faster than one by one."""
        ids, lengths = self.encode_flat(texts)
        flat, ends = ids.tolist(), np.cumsum(lengths).tolist()
        return [flat[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def encode_flat(
        self, texts: Sequence[str], known: dict[str, list[int]] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids of all sentences one after the other, and how many each has: two int64 arrays.

        Args:
            texts: sentences.
            known: words met before by their ids, which are cut no more; new ones are added.
        """
        tags = self.vocabulary.tags if self.reads_tags else ()
        heads: list[list[int]] = []
        if tags:
            parts = [_cut_tags(normalize(text, self.normalization), tags) for text in texts]
            heads, texts = [head for head, _ in parts], [rest for _, rest in parts]
        # No normalization reaches over a space, so a text may be normalized word by word as well.
        cut_all = self._encode_words if known is None else partial(self._encode_new_words, known)
        cut = CutTexts.of(texts, self.tokenizer.cuts_at_spaces, cut_all)
        ids, lengths = cut.flat(), cut.lengths()
        if tags:
            before = np.fromiter(map(len, heads), dtype=np.int64)
            begins = np.repeat(np.cumsum(lengths) - lengths, before)
            ids, lengths = np.insert(ids, begins, list(chain.from_iterable(heads))), lengths + before
        return ids, lengths

    def _encode_words(self, words: list[str]) -> list[list[int]]:
        texts = [normalize(word, self.normalization) for word in words]
        if isinstance(self.tokenizer, SubwordTokenizer):
            return self.tokenizer.encode_all(texts)
        return [self.vocabulary.encode(self.tokenizer.tokenize(text)) for text in texts]

    def _encode_new_words(self, known: dict[str, list[int]], words: list[str]) -> list[list[int]]:
        new = [word for word in words if word not in known]
        known.update(zip(new, self._encode_words(new), strict=True))
        return [known[word] for word in words]

    def resample(self, ids: list[int], dropout: float, seed: int) -> list[int]:
        """Return a sentence of BPE subwords cut anew; see `SubwordTokenizer.resample`. Tags stay."""
        assert isinstance(self.tokenizer, SubwordTokenizer)
        if UNK in ids:  # what it stands for is lost
            return ids
        first = self.vocabulary.num_reserved
        text = next((position for position, number in enumerate(ids) if number >= first), len(ids))
        return ids[:text] + self.tokenizer.resample(ids[text:], dropout, seed)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the sentence that `ids` stand for, up to the first EOS, as `readable` would give it."""
        return self.readable(self.tokenizer.detokenize(self.vocabulary.decode(ids)))

    def readable(self, text: str) -> str:
        """Return the text of a sentence as a translation would give it: normalized, and not cut into subwords."""
        return undo(normalize(text, self.normalization), self.segmentation)

    def files(self, name: str) -> dict[str, bytes]:
        """Return by file name what `load` reads again as side `name`, "source" or "target"."""
        files = {_vocabulary_file(name): self.vocabulary.to_text().encode()}
        if isinstance(self.tokenizer, SubwordTokenizer):
            files[_model_file(name)] = self.tokenizer.model
        return files

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], name: str, settings: SideSettings) -> Self:
        """Return the side whose `files(name)` these are; they may be among others."""
        lines = files[_vocabulary_file(name)].decode().split("\n")[:-1]
        tokenizer = make_tokenizer(settings.tokenizer, files.get(_model_file(name)))
        return cls.of(settings, tokenizer, Vocabulary(lines, settings.tags))

    @classmethod
    def load(cls, directory: Path, name: str, settings: SideSettings) -> Self:
        """Read side `name`, "source" or "target", from its files in a directory.

        Raises:
            UserError: as `Vocabulary.load`; or the subwords' model is none, or another vocabulary's.
        """
        path, model_path = directory / _vocabulary_file(name), directory / _model_file(name)
        vocabulary = load_vocabulary(path, settings.tags)
        model = _read(model_path) if settings.tokenizer in ("bpe", "unigram") else None
        try:
            tokenizer = make_tokenizer(settings.tokenizer, model)
        except ValueError as error:
            raise UserError(f"{model_path} {error}; put back the file of the run") from None
        if isinstance(tokenizer, SubwordTokenizer):
            line = _first_difference(tokenizer.pieces, vocabulary.tokens)
            if line is not None:
                raise UserError(
                    f"{model_path} and {path} do not belong together: they differ from line {line} of the vocabulary "
                    "on; put back both files of the run"
                )
        return cls.of(settings, tokenizer, vocabulary)


def _count_tokens(side: TextSide, sentences: Iterable[str]) -> Counter[str]:
    """Count the tokens of any number of sentences in bounded memory."""
    counts: Counter[str] = Counter()
    sentences = iter(sentences)
    while some := list(islice(sentences, _TEXTS_AT_A_TIME)):
        counts.update(side.cut(some).counts())
    return counts


def _cut_tags(text: str, tags: Sequence[str]) -> tuple[list[int], str]:
    """Cut the tags off the beginning of a sentence; return their ids, and the rest."""
    numbers: list[int] = []
    while (found := max((tag for tag in tags if text.startswith(tag)), key=len, default=None)) is not None:
        numbers.append(len(SPECIALS) + tags.index(found))
        text = text.removeprefix(found).lstrip()
    return numbers, text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; put back the file of the run") from None


def _first_difference(pieces: Sequence[str], tokens: Sequence[str]) -> int | None:
    """Return the first line of a vocabulary, counting from 1, that is not a model's; None if all are."""
    lines = enumerate(zip_longest(pieces, tokens), start=1)
    return next((number for number, (piece, token) in lines if piece != token), None)


def _vocabulary_file(name: str) -> str:
    return f"{name}_vocabulary.txt"


def _model_file(name: str) -> str:
    return f"{name}_subwords.model"
