"""Tokens that whitespace separates."""


class WhitespaceTokenizer:
    """Tokens are what whitespace separates: for text that is tokenized already."""

    cuts_at_spaces = True

    def tokenize(self, text: str) -> list[str]:
        """Split at whitespace."""
        return text.split()

    def detokenize(self, tokens: list[str]) -> str:
        """Join with single spaces."""
        return " ".join(tokens)
