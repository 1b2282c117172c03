"""Score a trained run, or a file of translations, on test pairs, and compare it with others."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dist_s2s import UserError
from dist_s2s.cli.command_line import (
    add_replace_unknown,
    add_search_options,
    command_parser,
    given_search,
    positive_int,
    program,
    run_command,
)
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.outputs import check_files
from dist_s2s.cli.pairs import add_columns_option, files_of, read_pairs
from dist_s2s.cli.sampling_options import add_sampling_options, check_sampling
from dist_s2s.cli.search_choice import search_choice
from dist_s2s.cli.sentences import check_shared, read_lines

if TYPE_CHECKING:
    from dist_s2s.analysis.answers import Answer
    from dist_s2s.analysis.systems import Judged, System
    from dist_s2s.translation.scores.scoring import Pairs

_EXAMPLES = 3


def main() -> int:
    """Translate the pairs' sources and score the results, on one process or under torchrun."""
    prog = program("evaluate")
    check_extra(prog)
    arguments = _parser(prog).parse_args()
    _check(arguments)
    from dist_s2s.analysis.evaluation import evaluate, plain_side
    from dist_s2s.analysis.evaluation_tables import show_evaluation
    from dist_s2s.analysis.systems import check_systems, choose_tokenizer, translate_systems
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.text.corpus import describe
    from dist_s2s.translation.runs.load import run_of
    from dist_s2s.translation.runs.members import load_members
    from dist_s2s.translation.scores.scoring import Scorer

    with joined_ranks() as ranks:
        named = [arguments.hypotheses, *arguments.compare, *files_of(arguments.data)]
        check_shared(named, ranks.world_size)
        translator = None if arguments.run is None else load_members(arguments.run, ranks)
        config = None if translator is None else translator.config
        data, pairs = ranks.together(lambda: read_pairs(arguments.data, arguments.columns, config))
        systems = ranks.together(lambda: _read_systems(arguments, data, pairs))
        source, target = (plain_side(), plain_side()) if translator is None else (translator.source, translator.target)
        references = [target.readable(reference) for _, reference in pairs]
        scorer = Scorer(ranks.together(lambda: choose_tokenizer(systems, arguments.bleu_tokenizer)), references)
        ranks.on_first(scorer.check)  # before the work
        choice = search_choice(arguments)
        ranks.together(lambda: check_systems(systems, translator, choice))
        trained = None if config is None else (run_of(arguments.run[0]), config)
        judged = translate_systems(systems, translator, target, pairs, choice, ranks)
        answer = ranks.on_first(
            lambda: {
                "data": describe(data),
                "sentences": len(pairs),
                **evaluate(judged, scorer, source, target, trained, arguments.examples or _EXAMPLES),
            }
        )
        ranks.together(lambda: _write(arguments, answer, judged[0]) if ranks.is_first else None)
        if ranks.is_first:
            show_evaluation(answer)
    return 0


def _write(arguments: argparse.Namespace, answer: "Answer", judged: "Judged") -> None:
    """Write the files that are named, each whole or not at all; UserError if one cannot be written."""
    from dist_s2s.storage.durable_files import write_output

    if arguments.json is not None:
        write_output(arguments.json, (json.dumps(answer, indent=1, ensure_ascii=False) + "\n").encode())
    if arguments.output is not None:
        write_output(arguments.output, "".join(f"{hypothesis}\n" for _, _, hypothesis in judged.rows).encode())


def _parser(prog: str) -> argparse.ArgumentParser:
    from dist_s2s.config.training import BleuTokenizer

    parser = command_parser(prog, __doc__)
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        action="extend",
        help="run directory, or a checkpoint in one; of several the mean of their probabilities counts",
    )
    parser.add_argument(
        "--hypotheses",
        type=Path,
        metavar="FILE",
        help="score the lines of this file instead of translating; with --run, it tells the references' perplexity",
    )
    parser.add_argument(
        "--data",
        help="a file of pairs of any form; a prepared corpus or phrasebook, for its test pairs (default: the run's "
        "test data)",
    )
    add_columns_option(parser)
    parser.add_argument(
        "--compare",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="also translate with this run, or read this file of translations, and compare; may be repeated",
    )
    parser.add_argument(
        "--examples",
        type=positive_int,
        metavar="N",
        help=f"show N sentences that a compared system translates better, and N worse (default: {_EXAMPLES})",
    )
    add_search_options(parser)
    add_replace_unknown(parser)
    add_sampling_options(parser)
    parser.add_argument(
        "--bleu_tokenizer",
        choices=get_args(BleuTokenizer),
        help="sacreBLEU's, for BLEU; auto: by the script of the references (default: as in the run)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all that is found to this file")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the translations, one a line")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that do not fit together."""
    check_sampling(arguments)
    inputs = [*files_of(arguments.data), arguments.hypotheses, *arguments.compare]
    check_files([arguments.json, arguments.output], inputs)
    if arguments.run is None and arguments.hypotheses is None:
        raise UserError("there is nothing to score: give --run RUN, or --hypotheses FILE")
    if arguments.run is None and arguments.data is None:
        raise UserError("give --data FILE: without --run it is not known which pairs the translations belong to")
    for_runs = [name for name in ("replace_unknown", "sample", "mbr") if getattr(arguments, name)]
    for_runs += given_search(arguments)
    if for_runs and arguments.hypotheses is not None and not any(map(Path.is_dir, arguments.compare)):
        raise UserError(f"--{for_runs[0]} is for runs that translate, but here are translations alone: leave it out")
    if arguments.examples is not None and not arguments.compare:
        raise UserError("--examples shows where two systems differ: give --compare RUN too")


def _read_systems(arguments: argparse.Namespace, data: str, pairs: "Pairs") -> "list[System]":
    """Return the system to score and those to compare it with: folders are runs, files are translations."""
    from dist_s2s.analysis.systems import System, check_lines

    def lines_of(path: Path) -> Sequence[str]:
        return check_lines(str(path), read_lines(path), data, pairs)

    first = arguments.hypotheses
    runs = arguments.run or []
    name = str(first or " + ".join(map(str, runs)))
    systems = [System(name, next(iter(runs), None), None if first is None else lines_of(first))]
    for path in arguments.compare:
        if path.is_dir():
            systems.append(System(str(path), path, None))
        elif path.exists():
            systems.append(System(str(path), None, lines_of(path)))
        else:
            raise UserError(f"there is no run and no file {path} to compare with")
    return systems


if __name__ == "__main__":
    run_command(main)
