"""The folder that a probe becomes: figures, pictures and vectors."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.numpy import save_file

from dist_s2s import UserError, counted
from dist_s2s.analysis.attention_picture import draw_attention
from dist_s2s.analysis.map_picture import draw_map
from dist_s2s.analysis.probing import Probe
from dist_s2s.analysis.projection import axes_of_vectors
from dist_s2s.storage.durable_files import check_new, writable
from dist_s2s.text.extras import extra
from dist_s2s.translation.attention import WordAttention

FIGURES, VECTORS = "probe.json", "sentences.safetensors"
_LABELS = 100


def check_output(output: Path) -> None:
    """Raise UserError if the folder exists or cannot be made, or pictures cannot be drawn: before the work."""
    extra("matplotlib", "analysis", "probe")
    check_new(output)
    if not output.parent.is_dir():
        raise UserError(f"cannot make {output}: there is no folder {output.parent}; make it first")


def write_probe(found: Probe, output: Path) -> list[str]:
    """Write all files of a probe, or none, and return what the user must know of the pictures.

    Raises:
        UserError: it cannot be written.
    """
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writable(output):
            partial.mkdir()
            warnings = _write(found, partial)
            os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return list(dict.fromkeys(filter(None, warnings)))


def _write(found: Probe, folder: Path) -> list[str]:
    """Write the files; the pictures' names go into the figures."""
    warnings = []
    for number, looks in enumerate(found.answer["attention"], start=1):
        looks["picture"] = f"attention-{number}.png"
        texts = [(key, looks[key]) for key in ("sentence", "translation", "reference") if looks[key] is not None]
        words = WordAttention.from_lists(looks["source"], looks["target"], looks["weights"])
        warnings.append(draw_attention(words, texts, folder / looks["picture"]))
    if len(found.rows) > 1:
        warnings.append(_draw_sentences(found, folder / "sentences.png"))
    save_file({str(pooling): rows for pooling, rows in found.vectors.items()}, folder / VECTORS)
    (folder / FIGURES).write_text(json.dumps(found.answer, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return warnings


def _draw_sentences(found: Probe, output: Path) -> str:
    """Draw the sentences in the plane in which their vectors differ most; the first ones have labels."""
    vectors = torch.from_numpy(found.vectors["mean"])
    axes = axes_of_vectors(vectors)
    labels = [source if place < _LABELS else "" for place, (source, _, _) in enumerate(found.rows)]
    how = f"means of what the encoder makes of the tokens, in the plane of {axes.shares.sum():.1%} of their variance"
    title = counted(len(labels), "sentence")
    return draw_map(axes.project(vectors).numpy(), labels, title, how, output, equal=True)
