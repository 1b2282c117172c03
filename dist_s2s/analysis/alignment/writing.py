"""Files of an alignment: the mapping, mapped vectors, and the dictionary that they induce."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_s2s import UserError
from dist_s2s.analysis.alignment.aligning import Alignment
from dist_s2s.analysis.alignment.normalizing import all_blocks
from dist_s2s.distributed import Ranks
from dist_s2s.storage.durable_files import whole_file, write_output
from dist_s2s.text.vectors.writing import write_word2vec


def save_mapping(alignment: Alignment, path: Path, ranks: Ranks) -> None:
    """Write the mapping as safetensors, on the first rank (collective); UserError if it cannot be written."""
    names = {"source": alignment.source.name, "target": alignment.target.name}
    ranks.together(lambda: alignment.mapping.save(path, names) if ranks.is_first else None)


def save_dictionary(alignment: Alignment, path: Path, ranks: Ranks) -> int:
    """Write the words that are each other's best translation, `SOURCE<TAB>TARGET<TAB>CSLS` (collective).

    Returns:
        How many they are.

    Raises:
        UserError: on every rank, if they cannot be written.
    """
    pairs, scores = alignment.translations.mutual()
    source, target = alignment.source.plain_words, alignment.target.plain_words
    lines = (f"{source[a]}\t{target[b]}\t{score:.4f}\n" for (a, b), score in zip(pairs, scores, strict=True))
    ranks.together(lambda: write_output(path, "".join(lines).encode()) if ranks.is_first else None)
    return len(pairs)


def save_mapped(alignment: Alignment, path: Path, ranks: Ranks) -> None:
    """Write the source's words with vectors in the target's space, as word2vec text (collective).

    The first rank writes, a block at a time; the others give it their rows.

    Raises:
        UserError: on every rank, if the file cannot be written.
    """
    source, blocks, error = alignment.source, _mapped_blocks(alignment), None
    if ranks.is_first:
        try:
            with whole_file(path) as place:
                write_word2vec(place, source.plain_words[source.reserved :], source.rows.dim, blocks)
        except UserError as caught:
            error = caught
    for _ in blocks:  # those that this rank does not write, which others may wait for
        pass

    def tell() -> None:
        if error is not None:
            raise error

    ranks.together(tell)


def _mapped_blocks(alignment: Alignment) -> Iterator[NDArray[np.float32]]:
    for ids, block in all_blocks(alignment.source.rows):
        mapped = alignment.mapping.to_target(block) * block.any(dim=1)[:, None]  # what has no direction stays zero
        yield mapped[ids >= alignment.source.reserved].float().numpy()
