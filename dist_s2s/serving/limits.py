"""How much a service takes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a service refuses, and what it translates together.

    Attributes:
        max_body: bytes of a request's body.
        max_sentences: sentences of a request.
        max_characters: characters of a sentence.
        max_beam_size: of a request.
        max_waiting: sentences of all requests that wait to be translated.
        max_batch: sentences that are translated together.
        batch_window: seconds that the first sentence of a batch waits for others, and again while others come, up to
            four times.
    """

    max_body: int = 1 << 18
    max_sentences: int = 64
    max_characters: int = 1000
    max_beam_size: int = 10
    max_waiting: int = 512
    max_batch: int = 32
    batch_window: float = 0.005
