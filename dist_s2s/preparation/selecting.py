"""Which pairs are for training, validation and test: the filters that look at the whole corpus, and the splits."""

from dataclasses import dataclass

import numpy as np

from dist_s2s import UserError, counted

TRAIN, VALID, TEST, DUPLICATE, SCRIPT, LEAK = range(6)
DROPPED = {"duplicates": DUPLICATE, "script": SCRIPT, "leaks": LEAK}
SPLIT_PAIRS = 2000
_MAIN_SHARE = 0.8  # of the pairs: a script of fewer is not the side's


@dataclass
class Corpus:
    """What is known of all pairs: hashes uint64 [N, 2] and scripts uint8 [N, 2] of their sides."""

    hashes: np.ndarray
    scripts: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)


def filtered(corpus: Corpus, filters: tuple[str, ...], held_out: np.ndarray) -> np.ndarray:
    """Return TRAIN, or which filter leaves it out, for each pair: uint8 [N].

    Args:
        corpus: the pairs.
        filters: by name.
        held_out: hashes of the sides of the given validation and test data: uint64 [M, 2].
    """
    places = np.zeros(len(corpus), dtype=np.uint8)
    if "script" in filters:
        for scripts in corpus.scripts.T:
            places[_is_foreign(scripts)] = SCRIPT
    if "duplicates" in filters:
        kept = np.flatnonzero(places == TRAIN)
        pairs = mixed(corpus.hashes[kept, 0]) ^ corpus.hashes[kept, 1]
        repeated = np.ones(len(kept), dtype=bool)
        repeated[np.unique(pairs, return_index=True)[1]] = False
        places[kept[repeated]] = DUPLICATE
    if "leaks" in filters and len(held_out):
        leaks = np.isin(corpus.hashes[:, 0], held_out[:, 0]) | np.isin(corpus.hashes[:, 1], held_out[:, 1])
        places[leaks & (places == TRAIN)] = LEAK
    return places


def cut_off(corpus: Corpus, places: np.ndarray, valid_size: int | None, test_size: int | None, seed: int) -> None:
    """Turn some training pairs into validation and test pairs, by a seeded hash of their sources.

    They are chosen among those of whose sides neither occurs in another pair. So no side is in two splits, and no
    pair is lost to that.

    Args:
        corpus: the pairs.
        places: of each; changed.
        valid_size, test_size: pairs wanted; None for a twentieth of the pairs, but no more than `SPLIT_PAIRS`.
        seed: another one chooses others.

    Raises:
        UserError: there are too few such pairs.
    """
    kept = np.flatnonzero(places == TRAIN)
    usual = min(SPLIT_PAIRS, len(kept) // 20)
    sizes = [max(1, usual) if size is None else size for size in (valid_size, test_size)]
    alone = _occurs_once(corpus.hashes[kept, 0]) & _occurs_once(corpus.hashes[kept, 1])
    candidates = kept[alone]
    if sum(sizes) > len(candidates) or sum(sizes) >= len(kept):
        raise UserError(
            f"{counted(len(kept), 'pair is', 'pairs are')} left, and "
            f"{counted(len(candidates), 'of them shares', 'of them share')} no side with another: too few to cut off "
            f"{sizes[0]:,} for validation and {sizes[1]:,} for the test; give them (--valid and --test of prepare, "
            "data.valid and data.test of train), or cut off fewer"
        )
    order = candidates[
        np.argsort(
            mixed(corpus.hashes[candidates, 0] ^ mixed(np.array([seed % 2**64], dtype=np.uint64))), kind="stable"
        )
    ]
    places[order[: sizes[0]]] = VALID
    places[order[sizes[0] : sum(sizes)]] = TEST


def mixed(values: np.ndarray) -> np.ndarray:
    """Return a one-to-one scramble of 64 bits (the finalizer of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = values ^ (values >> np.uint64(31))
    return result


def _is_foreign(scripts: np.ndarray) -> np.ndarray:
    """Tell which sides are in another script than nearly all of those with letters."""
    counts = np.bincount(scripts, minlength=256)
    counts[0] = 0
    main = int(counts.argmax())
    if counts[main] < _MAIN_SHARE * max(1, counts.sum()):
        return np.zeros(len(scripts), dtype=bool)
    foreign: np.ndarray = (scripts != 0) & (scripts != main)
    return foreign


def _occurs_once(values: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    differs = np.concatenate([[True], values[order][1:] != values[order][:-1], [True]])
    once = np.empty(len(values), dtype=bool)
    once[order] = differs[:-1] & differs[1:]
    return once
