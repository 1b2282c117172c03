"""The console script: `dist-s2s NAME ARGUMENT ...` is `python -m dist_s2s.NAME ARGUMENT ...`."""

import signal
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from dist_s2s import UserError, __version__
from dist_s2s.cli.command_line import ON_RANKS, positive_int, run_command

COMMANDS = {
    "train": "train a translator: on files of pairs, on the data of a configuration, or on a generated phrasebook",
    "prepare": "turn files of sentence pairs into a filtered corpus that training reads from the disk",
    "translate": "translate lines from stdin or a file with a trained run",
    "evaluate": "score a trained run, or a file of translations, on test pairs, and compare it with others",
    "score": "tell how likely a trained run finds given translations",
    "average": "average the weights of a run's checkpoints into a new run",
    "probe": "show what a trained run looks at and where it errs",
    "embeddings": "look at the word vectors of a trained run",
    "watch": "show a run in the terminal while it trains: its curves, its ranks, and what is slow",
    "report": "write a page of all that is known of a run, to be read without a network",
    "evolution": "show how the vectors of words moved while a run trained",
    "align": "map the word vectors of one language onto those of another",
    "export": "write a trained run's word vectors for other programs, or the run itself to translate faster",
    "serve": "answer over HTTP with a trained run: a page to try it on, and a JSON API",
    "estimate": "predict what a training step of a sharded table costs",
}


def main() -> None:
    """Run the command that the first argument names."""
    run_command(lambda: _dispatch(sys.argv[1:]))


def _dispatch(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"dist-s2s {__version__}")
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "dist-s2s --help lists the commands"
        raise UserError(f"there is no command {name}; {hint}")
    sys.argv = [f"dist-s2s {name}", *arguments[1:]]
    if name in ON_RANKS:
        ranks, sys.argv[1:] = _take_ranks(sys.argv[1:])
        if ranks is not None:
            return _start_ranks(ranks, name, sys.argv[1:])
    status: int = import_module(f"dist_s2s.{name}").main()
    return status


def _help() -> str:
    lines = [f"  {name:10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dist-s2s COMMAND [ARGUMENT ...]",
            "",
            *lines,
            "",
            f"{', '.join(ON_RANKS)} take --ranks N, and then run as N processes on this machine.",
            "dist-s2s COMMAND --help says more about a command.",
        ]
    )


def _take_ranks(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """Split `--ranks N` or `--ranks=N` off the arguments; None without it."""
    ranks, rest, words = None, [], iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--ranks":
            rest.append(word)
            continue
        text = value if equals else next(words, "")
        try:
            ranks = positive_int(text)
        except ArgumentTypeError as error:
            raise UserError(f"--ranks {error}") from None
    return ranks, rest


def _start_ranks(ranks: int, name: str, arguments: Sequence[str]) -> int:
    from dist_s2s.cli.torchrun import launch  # imports torch

    status = launch(["--standalone", f"--nproc_per_node={ranks}", "-m", f"dist_s2s.{name}", *arguments])
    stopped_as_meant = name == "serve" and status == 128 + signal.SIGTERM
    return 0 if stopped_as_meant else status


if __name__ == "__main__":
    main()
