"""Train a translator: on files of pairs, or without arguments on the phrasebook, as configs/phrasebook.yaml says.

dist-s2s train pairs.tsv --minutes 20
dist-s2s train --ranks 4 [--config configs/NAME.yaml] [--section.key VALUE ...]
torchrun --nproc_per_node=4 -m dist_s2s.train [--config configs/NAME.yaml] [--section.key VALUE ...]
"""

import sys

from dist_s2s.cli.command_line import program, run_command
from dist_s2s.cli.extras import check_extra

_FLAGS = ("--verbose", "-h", "--help")
_SHORT = {"minutes": "training.max_minutes", "columns": "data.columns", "trace": "training.trace"}


def main() -> int:
    """Read the configuration, then train."""
    prog = program("train")
    check_extra(prog)
    from dist_s2s.cli.arguments import parse_arguments, split_inputs
    from dist_s2s.config import load_config

    inputs, options = split_inputs(sys.argv[1:], _FLAGS)
    words = [word for word in options if word != "--verbose"]
    config_file, overrides = parse_arguments(words, prog, __doc__ or "")
    overrides = {_SHORT.get(key, key): value for key, value in overrides.items()}
    if inputs:
        from dist_s2s.cli.own_data import name_run

        overrides = name_run(inputs, config_file, overrides)
    config = load_config(config_file, overrides)
    # Not before: it takes seconds to import torch, and a mistake in the configuration is to be told at once.
    from dist_s2s.training.run import run_training

    run_training(config, verbose="--verbose" in options, inputs=inputs)
    return 0


if __name__ == "__main__":
    run_command(main)
