"""Words of a vocabulary that a new word is made of."""

from collections.abc import Container

from dist_s2s.text.vocabulary import UNK, Vocabulary


def pieces_of(word: str, vocabulary: Vocabulary, left_out: Container[int] = ()) -> list[int]:
    """Return the ids of the pieces of ``word`` that the vocabulary has: each time the longest that follows.

    A character that begins no piece is passed over, so ``Dampfschiff`` is ``Dampf`` and ``schiff``, or single
    characters where no more is known. The whole word is no piece of itself.

    Args:
        left_out: ids that are not taken.
    """
    found: list[int] = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            if end - start == len(word):
                continue
            [index] = vocabulary.encode([word[start:end]])
            if index != UNK and index not in left_out:
                found.append(index)
                start = end - 1
                break
        start += 1
    return found
