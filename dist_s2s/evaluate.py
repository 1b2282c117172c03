"""Score a trained run on a test file: BLEU and chrF."""

import argparse
import json
import time
from pathlib import Path

from dist_s2s.cli.command_line import open_output, positive_int, program, run_command
from dist_s2s.cli.extras import check_extra


def main() -> int:
    """Translate the file's source side and score the result, on one process or under torchrun."""
    prog = program("evaluate")
    check_extra(prog)
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument(
        "--data", required=True, help="a file of pairs of any form; a prepared corpus or phrasebook, for its test pairs"
    )
    parser.add_argument("--beam_size", type=positive_int, default=1, help="1 (default): greedy search")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    arguments = parser.parse_args()
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.text.corpus import describe, load_pairs
    from dist_s2s.translation.load import load_translator
    from dist_s2s.translation.scoring import corpus_scores, translate_pairs
    from dist_s2s.translation.search_options import SearchOptions

    with joined_ranks() as ranks:
        translator = load_translator(arguments.run, ranks)
        pairs = ranks.together(lambda: load_pairs(arguments.data, "test"))
        wants_file = ranks.is_first and arguments.json is not None
        json_file = ranks.together(lambda: open_output(arguments.json) if wants_file else None)
        started = time.monotonic()
        rows = translate_pairs(translator, pairs, SearchOptions(arguments.beam_size))
        seconds = time.monotonic() - started
        if ranks.is_first:
            scores = corpus_scores(rows)
            result = {
                "bleu": scores.bleu,
                "chrf": scores.chrf,
                "signature": scores.bleu_signature,
                "chrf_signature": scores.chrf_signature,
                "data": describe(arguments.data),
                "sentences": len(pairs),
                "seconds": seconds,
                "beam_size": arguments.beam_size,
            }
            for key, value in result.items():
                print(f"{key:15} {value:.2f}" if isinstance(value, float) else f"{key:15} {value}")
            if json_file is not None:
                with json_file:
                    json_file.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_command(main)
