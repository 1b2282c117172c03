"""Score a trained run on a test file: BLEU, chrF and TER."""

import argparse
import json
import time
from pathlib import Path
from typing import get_args

from dist_s2s.cli.command_line import add_search_options, open_output, program, run_command
from dist_s2s.cli.extras import check_extra


def main() -> int:
    """Translate the file's source side and score the result, on one process or under torchrun."""
    prog = program("evaluate")
    check_extra(prog)
    from dist_s2s.config.training import BleuTokenizer

    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument(
        "--data", required=True, help="a file of pairs of any form; a prepared corpus or phrasebook, for its test pairs"
    )
    add_search_options(parser)
    parser.add_argument(
        "--bleu_tokenizer",
        choices=get_args(BleuTokenizer),
        help="sacreBLEU's, for BLEU; auto: by the script of the references (default: as in the run)",
    )
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    arguments = parser.parse_args()
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.text.corpus import describe, load_pairs
    from dist_s2s.translation.load import load_translator
    from dist_s2s.translation.scoring import Scorer, translate_pairs
    from dist_s2s.translation.search_options import SearchOptions

    with joined_ranks() as ranks:
        translator = load_translator(arguments.run, ranks)
        pairs = ranks.together(lambda: load_pairs(arguments.data, "test"))
        wants_file = ranks.is_first and arguments.json is not None
        json_file = ranks.together(lambda: open_output(arguments.json) if wants_file else None)
        options = SearchOptions.of(translator.config, arguments.beam_size).with_limits(
            arguments.length_factor, arguments.extra_length
        )
        references = [reference for _, reference in pairs]
        scorer = Scorer(arguments.bleu_tokenizer or translator.config.training.bleu_tokenizer, references)
        ranks.on_first(lambda: scorer.can_tell(references))  # a tokenizer that is not installed is told before the work
        started = time.monotonic()
        found = translate_pairs(translator, pairs, options)
        seconds = time.monotonic() - started
        scores = ranks.on_first(lambda: scorer.all_scores(found.rows))
        if ranks.is_first:
            result = {
                **scores,
                "data": describe(arguments.data),
                "sentences": len(pairs),
                "translations_cut": found.cut,
                "longest_translation": options.longest,
                "seconds": seconds,
                "beam_size": arguments.beam_size,
            }
            for key, value in result.items():
                print(f"{key:19} {value:.2f}" if isinstance(value, float) else f"{key:19} {value}")
            if json_file is not None:
                with json_file:
                    json_file.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_command(main)
