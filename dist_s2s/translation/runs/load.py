"""From a run directory to its translator."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.models.int8 import why_not_int8
from dist_s2s.storage.checkpoint import list_checkpoints, load_weights, read_manifest, text_directory
from dist_s2s.storage.run_directory import CONFIG, checkpoint_of_run
from dist_s2s.storage.run_files import check_run
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.translation.runs.quantizing import load_quantized
from dist_s2s.translation.search.shortlist import SHORTLIST, Shortlist
from dist_s2s.translation.translator import Translator


@dataclass(frozen=True)
class SavedRun:
    """A run on the disk, by one of its checkpoints, with the text sides of that."""

    checkpoint: Path
    config: Config
    source: TextSide
    target: TextSide


def load_translator(run_dir: Path, ranks: Ranks) -> Translator:
    """Return the translator of a run's best checkpoint, its rows spread over ``ranks`` (collective).

    Raises:
        UserError: on every rank, if there is no run or no checkpoint, or a file of either is damaged.
    """
    return load_saved(ranks.together(lambda: read_run(run_dir)), run_dir, ranks)


def load_saved(run: SavedRun, name: Path, ranks: Ranks) -> Translator:
    """Return the translator of a run that has been read; ``name`` is what to call it (collective).

    Raises:
        UserError: on every rank, if a file of the checkpoint is damaged.
    """
    quantized = bool(ranks.together(lambda: read_manifest(run.checkpoint).get("quantized")))
    translator = Translator(run.config, run.source, run.target, ranks, quantized)
    if quantized:
        ranks.together(lambda: load_quantized(run.checkpoint, translator))
        why = "it is on a GPU" if ranks.device.type != "cpu" else why_not_int8()
        if why is not None and ranks.is_first:
            print(f"note: {name} computes with float32 weights, made of its int8 ones: {why}", file=sys.stderr)
    else:
        ranks.together(lambda: load_weights(run.checkpoint, translator.core, translator.tables))
    translator.shortlist = ranks.together(lambda: _shortlist(run))
    translator.core.eval()
    return translator


def _shortlist(run: SavedRun) -> Shortlist | None:
    """Return the shortlist that the run of a checkpoint has, if any."""
    path = run.checkpoint.parent.parent / SHORTLIST
    return Shortlist.load(path, run.source, run.target) if path.exists() else None


def read_run(run_dir: Path) -> SavedRun:
    """Return a run by its best checkpoint. Calls no collectives.

    Raises:
        UserError: if there is no run or no checkpoint, or a file of either is damaged.
    """
    if not (run_dir / CONFIG).is_file():
        raise UserError(f"{run_dir} is not a run directory: it has no {CONFIG}")
    check_run(run_dir)
    checkpoint = best_checkpoint(run_dir)
    if checkpoint is None:
        raise UserError(f"{run_dir} has no checkpoint yet; train first, or wait for the first one")
    return read_saved(run_dir, checkpoint)


def run_of(path: Path) -> Path:
    """Return the run of a checkpoint, RUN/checkpoints/step-N; of a run itself."""
    checkpoint = checkpoint_of_run(path)
    return path if checkpoint is None else checkpoint.parent.parent


def read_run_or_checkpoint(path: Path) -> SavedRun:
    """Return a run by one of its checkpoints, if ``path`` is that, or else as ``read_run``, which raises the same."""
    checkpoint = checkpoint_of_run(path)
    if checkpoint is None:
        return read_run(path)
    run_dir = checkpoint.parent.parent
    check_run(run_dir)
    return read_saved(run_dir, checkpoint)


def read_saved(run_dir: Path, checkpoint: Path) -> SavedRun:
    """Return a run, which has passed ``check_run``, by one of its checkpoints."""
    config = load_config(run_dir / CONFIG, {})
    return SavedRun(checkpoint, config, *load_text_sides(config, text_directory(checkpoint)))


def load_text_sides(config: Config, directory: Path) -> tuple[TextSide, TextSide]:
    """Return the source and target side of a run, from its configuration and its directory, or a checkpoint's."""
    source, target = side_settings(config)
    return TextSide.load(directory, "source", source), TextSide.load(directory, "target", target)


def side_settings(config: Config) -> tuple[SideSettings, SideSettings]:
    """Return what the configuration says of the source and the target side."""
    data = config.data
    source = SideSettings(
        data.source_tokenizer,
        data.source_vocabulary_size,
        data.min_frequency,
        normalization=data.normalization,
        byte_fallback=data.byte_fallback,
        tags=data.tags,
        joint=data.joint_vocabulary,
    )
    target = replace(
        source,
        tokenizer=data.target_tokenizer,
        max_size=data.target_vocabulary_size,
        tags=data.tags if data.joint_vocabulary else (),
        reads_tags=False,
        segmentation=data.target_segmentation,
    )
    return source, target


def best_checkpoint(run_dir: Path) -> Path | None:
    """Return the checkpoint of the best validation, or the newest if none was validated; None without any."""
    found = list_checkpoints(run_dir / "checkpoints")
    if not found:
        return None
    best = found[-1].with_name(f"step-{read_manifest(found[-1])['progress'].get('best_step')}")
    return best if best in found else found[-1]
