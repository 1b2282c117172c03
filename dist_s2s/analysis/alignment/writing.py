"""Files of an alignment: the mapping, mapped vectors, and the dictionary that they induce."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_s2s import UserError
from dist_s2s.analysis.alignment.aligning import Alignment
from dist_s2s.analysis.alignment.attention import mutual_best
from dist_s2s.analysis.alignment.normalizing import all_blocks
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.distributed import Ranks
from dist_s2s.storage.durable_files import whole_file, writable, write_output
from dist_s2s.text.vectors.writing import write_word2vec


def save_mapping(alignment: Alignment, path: Path, ranks: Ranks) -> None:
    """Write the mapping as safetensors, on the first rank (collective); UserError if it cannot be written."""
    names = {"source": alignment.source.name, "target": alignment.target.name}
    ranks.together(lambda: alignment.mapping.save(path, names) if ranks.is_first else None)


def save_dictionary(alignment: Alignment, path: Path, ranks: Ranks) -> int:
    """Write the words that are each other's best translation, `SOURCE<TAB>TARGET<TAB>SCORE` (collective).

    The score is CSLS; or, if a translator's attention was learnt from, which knows more than vectors, Dice's
    coefficient.

    Returns:
        How many they are.

    Raises:
        UserError: on every rank, if they cannot be written.
    """
    if alignment.attended:
        found = [(a, b, alignment.attended[a, b]) for a, b in mutual_best(alignment.attended)]
    else:
        pairs, scores = alignment.translations.mutual()
        source, target = alignment.source.plain_words, alignment.target.plain_words
        found = [(source[a], target[b], score) for (a, b), score in zip(pairs, scores, strict=True)]
    text = "".join(f"{a}\t{b}\t{score:.4f}\n" for a, b, score in found)
    ranks.together(lambda: write_output(path, text.encode()) if ranks.is_first else None)
    return len(found)


def save_mapped(alignment: Alignment, path: Path, ranks: Ranks) -> None:
    """Write the source's words with vectors in the target's space, as word2vec text (collective).

    Raises:
        UserError: on every rank, if the file cannot be written.
    """
    _write(alignment.source, _mapped_blocks(alignment), path, ranks)


def save_shared(alignment: Alignment, folder: Path, ranks: Ranks) -> None:
    """Write both sides as they were compared, normalized and the source mapped: source.vec, target.vec (collective).

    Raises:
        UserError: on every rank, if the folder cannot be made, or a file not be written.
    """

    def make() -> None:
        if ranks.is_first:
            with writable(folder):
                folder.mkdir(exist_ok=True)

    ranks.together(make)
    sides = (("source", alignment.source, alignment.translations.source), ("target", alignment.target, None))
    for name, side, mapped in sides:
        blocks = ((ids, block.float().numpy()) for ids, block in all_blocks(mapped or side.rows))
        words = (block[(ids >= side.reserved).numpy()] for ids, block in blocks)
        _write(side, words, folder / f"{name}.vec", ranks)


def _write(side: WordVectors, blocks: Iterator[NDArray[np.float32]], path: Path, ranks: Ranks) -> None:
    """Write a side's words with other vectors; the first rank writes block by block, the others give it their rows."""
    error = None
    if ranks.is_first:
        try:
            with whole_file(path) as place:
                # A space would end the word where the file is read again.
                words = [word.replace(" ", "_") for word in side.plain_words[side.reserved :]]
                write_word2vec(place, words, side.rows.dim, blocks)
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
