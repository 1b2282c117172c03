"""A map of words that needs no network, to zoom, search and click for neighbours: a page, or a part of another one."""

import html
import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np

from dist_s2s.analysis.word_map import WordMap
from dist_s2s.storage.durable_files import write_output


def write_page(words: WordMap, title: str, output: Path) -> None:
    """Write the page; it is replaced if it exists.

    Raises:
        UserError: it cannot be written.
    """
    parts = {"title": html.escape(title), "how": html.escape(words.how), "style": map_style(), "script": map_script()}
    page = _filled("map_page.html", {**parts, "map": map_markup(words, title)})
    write_output(output, page.encode())


def map_markup(words: WordMap, title: str) -> str:
    """Return the element of a map with its data, for a page that has ``map_style`` and, at its end, ``map_script``."""
    data = {
        "title": title,
        "how": words.how,
        "words": words.words,
        "places": np.round(words.places, 6).tolist(),
        "neighbours": words.neighbours(),
    }
    # As JSON that has no "<", no word can end the element that holds it; the script sets text, never markup.
    return _filled("word_map.html", {"data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")})


def map_style() -> str:
    """Return the style sheet of all maps of a page."""
    return _read("word_map.css")


def map_script() -> str:
    """Return the script that shows all maps of a page."""
    return _read("word_map.js")


def _filled(name: str, parts: dict[str, str]) -> str:
    """Return a file with its {{ parts }} in their places; what looks like one within a part stays."""
    return re.sub(r"\{\{ (\w+) \}\}", lambda place: parts[place[1]], _read(name))


def _read(name: str) -> str:
    return files("dist_s2s.analysis").joinpath(name).read_text(encoding="utf-8")
