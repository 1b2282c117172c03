"""Sentences that somebody types at a terminal."""

import sys
from collections.abc import Iterator
from contextlib import suppress

from dist_s2s.text.lines import fault_of_sentence, visible_text

_PROMPT = "> "


def typed_groups() -> Iterator[list[str]]:
    """Yield each line that is typed as a group of its own, until Ctrl-D; what no sentence may have is told on stderr.

    Lines can be edited and called back where Python has readline; nothing of them is kept after the command. The prompt
    is on stdout if that is the terminal too, and otherwise on stderr, so that it is never among translations.
    """
    with suppress(ImportError):
        import readline  # noqa: F401 (input uses it from then on)
    while True:
        try:
            line = _read()
        except UnicodeDecodeError as error:
            print(f"error: the line is not UTF-8 ({error.reason})", file=sys.stderr)
            continue
        except EOFError:
            print(file=sys.stderr)  # or else the shell's prompt would stand behind ours
            return
        if (fault := fault_of_sentence(line)) is not None:
            print(f"error: the line {fault}", file=sys.stderr)
            continue
        yield [visible_text(line)]


def _read() -> str:
    if sys.stdout.isatty():
        return input(_PROMPT)
    print(_PROMPT, end="", file=sys.stderr, flush=True)
    if line := sys.stdin.readline():
        return line.removesuffix("\n")
    raise EOFError
