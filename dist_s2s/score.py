"""Score given translations with a trained run: the log-probability of each (forced decoding)."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dist_s2s import counted
from dist_s2s.cli.command_line import command_parser, program, run_command
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.outputs import check_files, open_output, write_on_first
from dist_s2s.cli.pairs import add_columns_option, files_of, read_pairs

if TYPE_CHECKING:
    from dist_s2s.text.side import TextSide
    from dist_s2s.translation.scores.forced import ForcedScore, Likelihood

_GROUP = 12_800  # pairs whose scores are written together


def main() -> int:
    """Write a line for each pair, in their order: log-probability, the same per token, and tokens, the end counted."""
    prog = program("score")
    check_extra(prog)
    parser = command_parser(prog, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("data", metavar="PAIRS", help="sources and their translations: a file of pairs of any form")
    add_columns_option(parser)
    parser.add_argument("--json", action="store_true", help="write an object a line instead, with each token's score")
    parser.add_argument("--output", type=Path, metavar="FILE", help="file for the scores (default: stdout)")
    arguments = parser.parse_args()
    check_files([arguments.output], files_of(arguments.data))
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.translation.runs.load import load_translator
    from dist_s2s.translation.scores.forced import Likelihood, encode_pairs, force

    with joined_ranks() as ranks:
        translator = load_translator(arguments.run, ranks)
        pairs = ranks.together(lambda: read_pairs(arguments.data, arguments.columns, None))[1]
        examples = ranks.together(lambda: encode_pairs(translator, pairs))  # before the output is opened
        with ranks.together(lambda: open_output(arguments.output, ranks)) as output:
            scores = []
            for begin in range(0, len(pairs), _GROUP):
                scores += force(translator, examples[begin : begin + _GROUP])
                lines = [
                    _as_json(source, target, score, translator.target) if arguments.json else _as_line(score)
                    for (source, target), score in zip(pairs[begin : begin + _GROUP], scores[begin:], strict=True)
                ]
                write_on_first(output, "".join(f"{line}\n" for line in lines), ranks)
        if ranks.is_first:
            readable = (translator.target.readable(target) for _, target in pairs)
            print(_summary(len(pairs), Likelihood.of(scores, readable)), file=sys.stderr)
    return 0


def _as_line(score: "ForcedScore") -> str:
    return f"{score.total:.6f}\t{score.mean:.6f}\t{len(score.log_probabilities)}"


def _as_json(source: str, target: str, score: "ForcedScore", side: "TextSide") -> str:
    values = {
        "source": source,
        "target": target,
        "log_probability": score.total,
        "mean_log_probability": score.mean,
        "tokens": score.tokens(side),
        "token_log_probabilities": score.log_probabilities,
    }
    return json.dumps(values, ensure_ascii=False)


def _summary(count: int, found: "Likelihood") -> str:
    return (
        f"{counted(count, 'translation')}: log-probability {found.log_probability:,.2f}; perplexity "
        f"{found.perplexity:,.2f} of {counted(found.tokens, 'token')} ({found.unknown_tokens:,} unknown), "
        f"{found.character_perplexity:,.2f} of {counted(found.characters, 'character')}"
    )


if __name__ == "__main__":
    run_command(main)
