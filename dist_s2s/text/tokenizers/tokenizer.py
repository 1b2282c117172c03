"""What every tokenizer can do."""

from typing import Protocol


class Tokenizer(Protocol):
    """Cuts text into tokens, which are never empty and never contain whitespace, and joins tokens to text."""

    @property
    def cuts_at_spaces(self) -> bool:
        """Whether no token depends on what stands beyond the next space: a text's tokens are those of its words."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of `text`, in order."""

    def detokenize(self, tokens: list[str]) -> str:
        """Return the text that `tokens` stand for; any sequence of tokens is accepted."""
