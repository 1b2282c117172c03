"""Sentences that somebody types at a terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from dist_s2s.text.lines import fault_of_sentence, visible_text

_PROMPT = "> "


def typed_groups(fault: Callable[[Sequence[str], int], tuple[int, str] | None]) -> Iterator[list[str]]:
    """Yield each line that is typed as a group of its own, until Ctrl-D; what no sentence may have is told on stderr.

    So is what ``fault`` finds; it is as of ``until_fault``. Lines can be edited and called back where Python has
    readline; nothing of them is kept after the command. The prompt is on stdout if that is the terminal too, and
    otherwise on stderr, so that it is never among translations.
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
        group = [visible_text(line)]
        if (text := fault_of_sentence(line)) is None and (found := fault(group, 0)) is not None:
            text = found[1]
        if text is None:
            yield group
        else:
            print(f"error: the line {text}", file=sys.stderr)


def _read() -> str:
    if sys.stdout.isatty():
        return input(_PROMPT)
    print(_PROMPT, end="", file=sys.stderr, flush=True)
    if line := sys.stdin.readline():
        return line.removesuffix("\n")
    raise EOFError
