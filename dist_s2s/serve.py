"""Serve a trained run over HTTP: a page to try it on, and a JSON API."""

import argparse
from functools import partial
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.cli.command_line import (
    RANKING_OPTIONS,
    add_ranking_options,
    chosen_search,
    command_parser,
    number_from_zero,
    port_number,
    positive_int,
    program,
    run_command,
)
from dist_s2s.cli.extras import check_extra


def main() -> int:
    """Answer requests until SIGINT or SIGTERM; then finish those that are under way."""
    prog = program("serve")
    check_extra(prog)
    parser = _parser(prog)
    options = parser.parse_args()
    check_extra(prog, "serve")
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.serving.answers import Answers
    from dist_s2s.serving.limits import Limits
    from dist_s2s.serving.server import StopSignals, bind, listen
    from dist_s2s.serving.service import run_service
    from dist_s2s.serving.turns import Turns
    from dist_s2s.translation.runs.load import load_translator

    others = ("run", "host", "port", *RANKING_OPTIONS)
    limits = Limits(**{name: value for name, value in vars(options).items() if name not in others})
    if limits.max_sentences > limits.max_waiting:
        raise UserError(
            f"--max_sentences is {limits.max_sentences}, but no more than --max_waiting = {limits.max_waiting} can "
            "wait, so such a request would never be answered: raise --max_waiting"
        )
    with joined_ranks() as ranks:
        listener = ranks.together(partial(bind, options.host, options.port) if ranks.is_first else lambda: None)
        translator = load_translator(options.run, ranks)
        answers = Answers(translator, chosen_search(options))
        about = {
            "run": options.run.resolve().name,
            "ranks": ranks.world_size,
            "attention": translator.config.model.attention,
        }
        address = ranks.together(lambda: listen(listener) if listener is not None else "")
        with StopSignals() as signals:
            turns = Turns(answers, signals.is_noted)
            if listener is None:
                turns.follow()
            else:
                print(f"serving {options.run} on {address} (Ctrl-C stops it)", flush=True)
                run_service(turns, limits, listener, signals, about)
        return signals.exit_status


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = command_parser(prog, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=port_number, default=8000, help="default: 8000; 0: any that is free")

    add_ranking_options(parser)

    def limit(name: str, default: int, text: str) -> None:
        parser.add_argument(
            name, type=positive_int, default=default, metavar="N", help=f"{text} (default: {default:,})"
        )

    limit("--max_body", 1 << 18, "most bytes of a request")
    limit("--max_sentences", 64, "most sentences of a request")
    limit("--max_characters", 1000, "most characters of a sentence")
    limit("--max_beam_size", 10, "largest beam")
    limit("--max_waiting", 512, "most sentences of all requests that wait")
    limit("--max_batch", 32, "most sentences that are translated together")
    parser.add_argument(
        "--batch_window",
        type=number_from_zero,
        default=0.005,
        metavar="SECONDS",
        help="how long a sentence waits for others to be translated with, and again while others come (default: 0.005)",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
