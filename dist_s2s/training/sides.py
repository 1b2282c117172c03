"""How a run comes to the two sides of its text."""

from collections.abc import Sequence
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import text_directory
from dist_s2s.text.building import build_sides
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.translation.runs.load import SavedRun, load_text_sides, side_settings


def make_sides(
    config: Config,
    checkpoint: Path | None,
    pairs: Sequence[tuple[str, str]],
    ranks: Ranks,
    origin: SavedRun | None = None,
) -> tuple[TextSide, TextSide]:
    """Return the sides of the run that goes on from a checkpoint, or new ones (collective); see ``data.vocabulary``.

    The first rank alone builds them, and sends their files to the others: learning subwords takes all cores, and its
    floating-point sums may differ from one processor to the next.

    Raises:
        UserError: on every rank, as ``TextSide.load`` or ``build_sides``; or if the origin cuts text into other tokens.
    """
    if checkpoint is not None:
        return ranks.together(lambda: load_text_sides(config, text_directory(checkpoint)))
    settings = side_settings(config)
    if config.data.stream is not None:
        return _growing_side(config, settings[0]), _growing_side(config, settings[1])

    def build() -> dict[str, bytes]:
        if not ranks.is_first:
            return {}
        source, target = _new_sides(config, pairs, origin)
        return source.files("source") | target.files("target")

    files = ranks.together(build)
    names = ranks.share("\n".join(files).encode()).decode().split("\n")
    files = {name: ranks.share(files.get(name, b"")) for name in names}
    source, target = settings
    return TextSide.from_files(files, "source", source), TextSide.from_files(files, "target", target)


def _new_sides(config: Config, pairs: Sequence[tuple[str, str]], origin: SavedRun | None) -> tuple[TextSide, TextSide]:
    choice, settings = config.data.vocabulary, side_settings(config)
    if origin is None or choice == "build":
        return build_sides(*settings, pairs)
    for name, mine, theirs in zip(("source", "target"), settings, side_settings(origin.config), strict=True):
        for key in ("tokenizer", "normalization", "tags", "segmentation", "joint"):
            here, there = getattr(mine, key), getattr(theirs, key)
            if here != there:
                raise UserError(
                    f"data.vocabulary: {choice} needs the text cut as in {origin.checkpoint}: the {name} side's {key} "
                    f"is {there} there, {here} here"
                )
    if choice == "keep":
        return origin.source, origin.target
    if any(mine.tokenizer in ("bpe", "unigram") for mine in settings):
        raise UserError("data.vocabulary: extend adds words, but subwords spell new words already; use keep")
    source, target = build_sides(*settings, pairs)
    return origin.source.extended(source), origin.target.extended(target)


def _growing_side(config: Config, settings: SideSettings) -> TextSide:
    """Return the side of a run on a stream, with nothing but special tokens yet."""
    assert settings.max_size is not None
    vocabulary = DynamicVocabulary(settings.max_size, settings.min_frequency, config.data.vocabulary_halve_every)
    return TextSide.of(settings, make_tokenizer(settings.tokenizer), vocabulary)


def size_notes(config: Config, source: TextSide, target: TextSide) -> list[str]:
    """Return a line for each side whose text has fewer subwords than its vocabulary size asks for."""
    notes = []
    for name, side, settings in zip(("source", "target"), (source, target), side_settings(config), strict=True):
        size, tokens = settings.max_size, len(side.vocabulary)
        if settings.tokenizer in ("bpe", "unigram") and size is not None and tokens < size:
            notes.append(f"data.{name}_vocabulary_size is {size:,}, but the training pairs give {tokens:,} subwords")
    return notes
