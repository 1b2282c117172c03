"""Drawing with matplotlib, without a display, in fonts that have all characters."""

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_s2s import UserError
from dist_s2s.analysis.fonts import CJK_PACKAGE, fonts_for
from dist_s2s.storage.durable_files import write_output
from dist_s2s.text.extras import extra

# Of those that matplotlib lists, some need programs that may be missing (pgf), or have no header (raw).
_FORMATS = ("png", "svg", "pdf", "jpg", "jpeg", "webp")


@contextmanager
def fonts(texts: Iterable[str], purpose: str, size: float) -> Iterator[str]:
    """Within: figures are drawn and written in fonts that have the characters of all texts, which are no formulas.

    matplotlib's own warnings of each character that no font has are left out.

    Yields:
        What the user must know of characters that no font has; empty if there is nothing.

    Raises:
        UserError: matplotlib is missing, which ``purpose`` needs.
    """
    matplotlib = extra("matplotlib", "analysis", purpose)
    chosen, missing = fonts_for(texts, purpose)
    settings = {"font.family": chosen, "font.size": size, "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield _without_font(missing)


def new_figure(size: tuple[float, float], purpose: str) -> Any:
    """Return an empty figure of that width and height in inches."""
    return extra("matplotlib.figure", "analysis", purpose).Figure(figsize=size, facecolor="white")


def check_format(output: Path, purpose: str) -> None:
    """Raise UserError if a picture of that suffix cannot be written, or matplotlib is missing."""
    if output.suffix[1:].lower() not in _FORMATS:
        how = f"as {output.suffix}" if output.suffix else "without a suffix"
        raise UserError(f"{output}: no picture is written {how}; try .png, .svg, .pdf, .jpg or .webp")
    extra("matplotlib", "analysis", purpose)


def write_figure(figure: Any, output: Path, dpi: int = 120) -> None:
    """Write the figure, whole or not at all, in the format that its suffix says.

    Raises:
        UserError: there is no such format, or the file cannot be written.
    """
    check_format(output, "a picture")
    content = io.BytesIO()
    figure.savefig(content, format=output.suffix[1:].lower(), dpi=dpi)
    write_output(output, content.getvalue())


def _without_font(missing: set[str]) -> str:
    """Say which characters no font has; nothing if all have one."""
    if not missing:
        return ""
    some = "".join(sorted(missing)[:10]) + ("…" if len(missing) > 10 else "")
    return (
        f"no font here has {some}, which show as boxes; for Chinese, Japanese and Korean install {CJK_PACKAGE} "
        f"(apt-get install {CJK_PACKAGE}) or another font that has them"
    )
