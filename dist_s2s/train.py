"""Train a translator. Without arguments: on the phrasebook, with the settings of configs/phrasebook.yaml.

dist-s2s train --ranks 4 [--config configs/NAME.yaml] [--section.key VALUE ...]
torchrun --nproc_per_node=4 -m dist_s2s.train [--config configs/NAME.yaml] [--section.key VALUE ...]
"""

import sys

from dist_s2s.cli.command_line import program, run_command
from dist_s2s.cli.extras import check_extra


def main() -> int:
    """Read the configuration, then train."""
    prog = program("train")
    check_extra(prog)
    from dist_s2s.cli.arguments import config_from_command_line

    words = [word for word in sys.argv[1:] if word != "--verbose"]
    config = config_from_command_line(words, prog, __doc__ or "")
    # Not before: it takes seconds to import torch, and a mistake in the configuration is to be told at once.
    from dist_s2s.training.run import run_training

    run_training(config, verbose=len(words) < len(sys.argv) - 1)
    return 0


if __name__ == "__main__":
    run_command(main)
