"""Places of a beam for hypotheses that have more or fewer of the tokens that their phrases want.

Dynamic beam allocation, Post & Vilar 2018 (arXiv:1804.06609): hypotheses that have equally many of these tokens are a
bank, and the places of a beam are dealt to the banks in turn, so that likelier ones without a phrase do not crowd out
those that begin it. A hypothesis may only end when it has all of its phrases.
"""

from collections.abc import Sequence

from torch import Tensor

# Shapes: B sentences, K beam_size, C candidates of each hypothesis.

Phrase = tuple[int, ...]


class Banks:
    """How far each hypothesis of a batch has come with the phrases of its sentence.

    The progress with a phrase is the number of its first tokens that a hypothesis ends with, or all once it has them.

    Attributes:
        beam_size: hypotheses of a sentence.
        end_id: of the end token.
    """

    def __init__(self, phrases_B: Sequence[Sequence[Phrase]], beam_size: int, end_id: int) -> None:
        self.beam_size, self.end_id = beam_size, end_id
        self._phrases = {number: phrases for number, phrases in enumerate(phrases_B) if phrases}
        self._progress = {
            number: [(0,) * len(phrases) for _ in range(beam_size)] for number, phrases in self._phrases.items()
        }

    @property
    def sentences(self) -> list[int]:
        """Those that have phrases."""
        return list(self._phrases)

    def has_all(self, sentence: int, place: int) -> bool:
        """Tell whether a hypothesis has all phrases of its sentence."""
        phrases = self._phrases.get(sentence, ())
        return all(
            progress == len(phrase)
            for progress, phrase in zip(self._progress[sentence][place] if phrases else (), phrases, strict=True)
        )

    def next_tokens(self, sentence: int, place: int) -> list[int]:
        """Return the different tokens that go on with a phrase that a hypothesis lacks."""
        phrases = self._phrases.get(sentence, ())
        states = self._progress[sentence][place] if phrases else ()
        pairs = zip(states, phrases, strict=True)
        return list(dict.fromkeys(phrase[state] for state, phrase in pairs if state < len(phrase)))

    def choose(self, best_BK: Tensor, scores_BKC: Tensor, ids_BKC: Tensor, goes_on_BK: Tensor) -> None:
        """Replace the K best of the K·C candidates of each sentence with phrases by those that the banks take."""
        for sentence in self._phrases:
            scores, ids = scores_BKC[sentence].flatten(), ids_BKC[sentence].flatten().tolist()
            values, places = scores.sort(descending=True, stable=True)
            goes_on, width = goes_on_BK[sentence].tolist(), ids_BKC.shape[2]
            banks, missing = dict[int, list[int]](), list[int]()
            for place, value in zip(places.tolist(), values.tolist(), strict=True):
                if value == float("-inf"):
                    missing.append(place)
                    continue
                progress = self._after(sentence, place // width, ids[place], goes_on[place // width])
                banks.setdefault(sum(progress), []).append(place)
            chosen = _deal([banks[bank] for bank in sorted(banks, reverse=True)], self.beam_size)
            best_BK[sentence] = best_BK.new_tensor((chosen + missing)[: self.beam_size])

    def follow(self, parents_BK: Tensor, tokens_BK: Tensor, goes_on_BK: Tensor) -> None:
        """Note what a step has made of the hypotheses, which went on before it or not."""
        for sentence in self._phrases:
            rows = (rows_BK[sentence].tolist() for rows_BK in (parents_BK, tokens_BK))
            goes_on = goes_on_BK[sentence].tolist()
            self._progress[sentence] = [
                self._after(sentence, parent, token, goes_on[parent]) for parent, token in zip(*rows, strict=True)
            ]

    def _after(self, sentence: int, place: int, token: int, goes_on: bool) -> tuple[int, ...]:
        before = self._progress[sentence][place]
        if not goes_on:
            return before
        return tuple(
            _advance(phrase, state, token) for phrase, state in zip(self._phrases[sentence], before, strict=True)
        )


def _advance(phrase: Phrase, state: int, token: int) -> int:
    """Return the progress with a phrase after one more token."""
    if state == len(phrase):
        return state
    ending = (*phrase[:state], token)
    return next(size for size in range(state + 1, -1, -1) if ending[len(ending) - size :] == phrase[:size])


def _deal(banks: list[list[int]], size: int) -> list[int]:
    """Take from the banks in turn, from each its first ones, until there are ``size`` or no more."""
    turns = range(max(map(len, banks), default=0))
    return [bank[turn] for turn in turns for bank in banks if turn < len(bank)][:size]
