"""What may be asked: from the bytes of a request to its values, or the reason why it is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dist_s2s.serving.limits import Limits
from dist_s2s.text.lines import fault_of_sentence, visible_text

MAX_WORD, MAX_NEIGHBOURS = 100, 100
_KEYS = ("text", "beam_size", "n_best", "attention")
_PARAMETERS = ("word", "side", "number", "token")
Side = Literal["source", "target"]
_SIDES: dict[str, Side] = {"source": "source", "target": "target"}


class Refusal(Exception):
    """An answer that is an error: its HTTP status, and what is wrong and what to do, in one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class TranslateRequest:
    """Sentences to translate, and how; the defaults are those of `dist-s2s translate`.

    Attributes:
        sentences: without a visible character they are empty.
        n_best: hypotheses that are wanted of each.
        attention: whether the attention of the best is wanted.
    """

    sentences: tuple[str, ...]
    beam_size: int = 1
    n_best: int = 1
    attention: bool = False


@dataclass(frozen=True)
class NeighboursRequest:
    """A word of one side, and how many neighbours are wanted."""

    word: str
    side: Side
    number: int
    is_token: bool = False  # the word is a token as it stands in the vocabulary, such as a part of one


def parse_translate(body: bytes, limits: Limits) -> TranslateRequest:
    """Return the request that is the body of a POST; raise Refusal for anything else."""
    values = _parse_object(body)
    _check_names(values, _KEYS, "key")
    texts = values.get("text")
    sentences = [texts] if isinstance(texts, str) else texts
    if not isinstance(sentences, list):
        raise Refusal(400, 'the key "text" must be a sentence or a list of sentences')
    if not sentences:
        raise Refusal(400, 'the list "text" is empty; it must have a sentence at least')
    if len(sentences) > limits.max_sentences:
        raise Refusal(
            413, f"{len(sentences):,} sentences are too many; send at most {limits.max_sentences:,} in a request"
        )
    for number, sentence in enumerate(sentences, 1):
        _check_sentence(sentence, number, limits)
    beam_size = _whole_number(values.get("beam_size", 1), "beam_size", limits.max_beam_size)
    n_best = _whole_number(values.get("n_best", 1), "n_best", limits.max_beam_size)
    if n_best > beam_size:
        raise Refusal(400, f"n_best is {n_best}, but a beam of {beam_size} finds no more; raise beam_size")
    attention = values.get("attention", False)
    if not isinstance(attention, bool):
        raise Refusal(400, f"attention must be true or false, but is {_shown(attention)}")
    if attention and len(sentences) > 1:
        raise Refusal(400, f"attention is for one sentence in a request, but there are {len(sentences)}")
    return TranslateRequest(tuple(map(visible_text, sentences)), beam_size, n_best, attention)


def parse_neighbours(parameters: Mapping[str, str]) -> NeighboursRequest:
    """Return the request that a query string makes; raise Refusal for anything else."""
    _check_names(parameters, _PARAMETERS, "parameter")
    word = parameters.get("word", "")
    if not visible_text(word):
        raise Refusal(400, "name a word: /neighbours?word=...")
    if len(word) > MAX_WORD:
        raise Refusal(413, f"the word has {len(word):,} characters; at most {MAX_WORD} are allowed")
    side = _SIDES.get(parameters.get("side", "source"))
    if side is None:
        raise Refusal(400, f"side must be source or target, but is {_shown(parameters['side'])}")
    text = parameters.get("number", "10")
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
    token = parameters.get("token", "false")
    if token not in ("true", "false"):
        raise Refusal(400, f"token must be true or false, but is {_shown(token)}")
    return NeighboursRequest(word, side, _whole_number(number, "number", MAX_NEIGHBOURS), token == "true")


def too_large(limits: Limits) -> Refusal:
    """Return the refusal of a body that is too large."""
    return Refusal(413, f"the request is larger than {limits.max_body:,} bytes; send fewer or shorter sentences")


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the request is not UTF-8: byte {error.start + 1} ({error.reason})") from None
    except RecursionError:
        raise Refusal(400, "the request is not what it should be: its JSON is nested too deeply") from None
    except ValueError as error:
        raise Refusal(400, f'the request is not JSON: {error}; send {{"text": "a sentence"}}') from None
    if not isinstance(values, dict):
        raise Refusal(400, f'the request must be a JSON object, {{"text": ...}}, but is {_shown(values)}')
    return values


def _check_names(values: Mapping[str, object], known: tuple[str, ...], what: str) -> None:
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        raise Refusal(400, f"there is no {what} {_shown(unknown)}; those there are: {', '.join(known)}")


def _check_sentence(sentence: object, number: int, limits: Limits) -> None:
    if not isinstance(sentence, str):
        raise Refusal(400, f"sentence {number} must be text, but is {_shown(sentence)}")
    if len(sentence) > limits.max_characters:
        raise Refusal(
            413,
            f"sentence {number} has {len(sentence):,} characters; at most {limits.max_characters:,} are allowed: "
            "divide it",
        )
    if (fault := fault_of_sentence(sentence)) is not None:
        raise Refusal(400, f"sentence {number} {fault}")


def _whole_number(value: object, name: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise Refusal(400, f"{name} must be a whole number from 1 to {most}, but is {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else f"{text[:37]}..."
