"""A map of words as one page that needs no network: zoom, search, and neighbours on click."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np

from dist_s2s import UserError
from dist_s2s.analysis.word_map import WordMap
from dist_s2s.storage.durable_files import write_durably

_PLACE = "DATA"  # in the page, once


def write_page(words: WordMap, title: str, output: Path) -> None:
    """Write the page; it is replaced if it exists.

    Raises:
        UserError: it cannot be written.
    """
    data = {
        "title": title,
        "how": words.how,
        "words": words.words,
        "places": np.round(words.places, 6).tolist(),
        "neighbours": words.neighbours(),
    }
    # As JSON that has no "<", no word can end the element that holds it; the script sets text, never markup.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    page = files("dist_s2s.analysis").joinpath("map_page.html").read_text(encoding="utf-8")
    try:
        write_durably(output, page.replace(f">{_PLACE}<", f">{text}<").encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from None
