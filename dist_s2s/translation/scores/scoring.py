"""BLEU, chrF and TER by sacreBLEU, always with the signature that says which BLEU it is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from dist_s2s import UserError
from dist_s2s.translation.scores.bleu_tokenizer import NEEDED, choose_bleu_tokenizer, is_installed
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator
from dist_s2s.translation.unknown_words import replace_unknown

Pairs = Sequence[tuple[str, str]]
Row = tuple[str, str, str]  # source, reference, hypothesis
_LONGEST_NGRAM = 4
TER_LEFT_OUT = "left out, as the sentences are too long"
_TER_CELLS = 3_000_000  # words of a hypothesis times those of its reference, summed; TER's search takes 0.1 ms for one


@dataclass(frozen=True)
class TranslatedPairs:
    """What a translator makes of sentence pairs: (source, reference, hypothesis), and how many it had to cut."""

    rows: list[Row]
    cut: int


def translate_pairs(
    translator: Translator,
    pairs: Pairs,
    options: SearchOptions | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> TranslatedPairs:
    """Translate the source of each pair, on every rank (collective); see ``Translator.search``.

    References are made ``readable``, as hypotheses are, so that both are in the same Unicode form and in whole words.
    """
    found = translator.translate([source for source, _ in pairs], options, after_batch)
    if options is not None and options.replace_unknown:
        found = replace_unknown(translator, found)
    readable = translator.target.readable
    rows = [(source, readable(target), mine.text) for (source, target), mine in zip(pairs, found, strict=True)]
    return TranslatedPairs(rows, sum(translation.is_cut for translation in found))


class Scores(TypedDict):
    """Corpus scores, and the sacreBLEU signatures that say which they are."""

    bleu: float
    chrf: float
    signature: str
    chrf_signature: str


class AllScores(Scores):
    """TER too, of which less is better, and which can be above 100; None where it would take too long."""

    ter: float | None
    ter_signature: str


class Scorer:
    """Corpus scores, 0 … 100, of detokenized hypotheses against one reference each. Calls no collectives.

    Attributes:
        tokenizer: sacreBLEU's for BLEU.
    """

    def __init__(self, tokenizer: str, references: Iterable[str]) -> None:
        """Take the tokenizer of that name, or with ``auto`` the one that suits the script of the references."""
        self.tokenizer = choose_bleu_tokenizer(references) if tokenizer == "auto" else tokenizer

    def check(self) -> None:
        """Raise UserError if the tokenizer is not installed here."""
        self.bleu.tokenizer("")

    def can_tell(self, references: Iterable[str]) -> bool:
        """Tell whether BLEU can be above 0: not if no reference has a 4-gram.

        Raises:
            UserError: if the tokenizer is not installed here.
        """
        return any(len(self.bleu.tokenizer(text).split()) >= _LONGEST_NGRAM for text in references)

    def scores(self, rows: Sequence[Row]) -> Scores:
        """Return BLEU and chrF.

        Raises:
            UserError: if the tokenizer is not installed here.
        """
        hypotheses, references = [row[2] for row in rows], [[row[1] for row in rows]]
        bleu, chrf = self.bleu, CHRF()
        return {
            "bleu": float(bleu.corpus_score(hypotheses, references).score),
            "chrf": float(chrf.corpus_score(hypotheses, references).score),
            "signature": str(bleu.get_signature()),
            "chrf_signature": str(chrf.get_signature()),
        }

    def all_scores(self, rows: Sequence[Row]) -> AllScores:
        """Return BLEU, chrF and TER; raises what ``scores`` does.

        TER needs words too: Chinese and Japanese are cut as sacreBLEU's TER does for Asian text. What BLEU cuts into
        characters is cut so for TER, and its signature says ``pretok:char``. TER searches for words that have moved,
        which may take hours for long sentences that repeat themselves: beyond a size it is left out.
        """
        if not self.can_ter([rows]):
            return {**self.scores(rows), "ter": None, "ter_signature": TER_LEFT_OUT}
        ter, cut = self.ter, self.cut_for_ter
        score = ter.corpus_score([cut(row[2]) for row in rows], [[cut(row[1]) for row in rows]]).score
        return {**self.scores(rows), "ter": float(score), "ter_signature": f"{ter.get_signature()}{self.ter_suffix}"}

    def can_ter(self, systems: Iterable[Sequence[Row]]) -> bool:
        """Tell whether TER of some translations would take minutes at most."""
        words = self.bleu.tokenizer
        return all(
            sum(len(words(row[1]).split()) * len(words(row[2]).split()) for row in rows) <= _TER_CELLS
            for rows in systems
        )

    @property
    def ter(self) -> TER:
        """A new metric, for texts that ``cut_for_ter`` has cut."""
        asian = self.tokenizer in ("zh", "ja-mecab")
        return TER(normalized=asian, asian_support=asian)

    def cut_for_ter(self, text: str) -> str:
        """Return a text whose words, as TER finds them, are its characters if those are what BLEU counts."""
        return " ".join(text) if self.tokenizer == "char" else text

    @property
    def ter_suffix(self) -> str:
        """What ``cut_for_ter`` adds to sacreBLEU's signature of TER."""
        return "|pretok:char" if self.tokenizer == "char" else ""

    @cached_property
    def bleu(self) -> BLEU:
        """The metric; UserError if its tokenizer is not installed here."""
        name = self.tokenizer
        if not is_installed(name):
            raise UserError(
                f"BLEU's tokenizer {name} is not installed: pip install 'sacrebleu[{NEEDED[name][1]}]', or choose "
                "another training.bleu_tokenizer, such as char"
            )
        try:
            return BLEU(tokenize=name, force=True)  # force: no advice to detokenize, which it gives at each score
        except ImportError:
            raise UserError(f"BLEU's tokenizer {name} needs SentencePiece: pip install sentencepiece") from None
        except (OSError, SystemExit) as error:
            raise UserError(
                f"BLEU's tokenizer {name} cannot be had: sacreBLEU downloads its model at first use, and that failed "
                f"({error}); choose another training.bleu_tokenizer, such as char"
            ) from None
