"""Average the weights of several checkpoints of a run into a new run, which may translate better than each."""

from pathlib import Path

from dist_s2s.cli.command_line import command_parser, positive_int, program, run_command
from dist_s2s.cli.extras import check_extra


def main() -> int:
    """Average, on one process or under torchrun, where each rank reads and writes its share of the rows."""
    prog = program("average")
    check_extra(prog)
    parser = command_parser(prog, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--last", type=positive_int, metavar="K", help="the newest K checkpoints (default: all)")
    which.add_argument("--steps", type=positive_int, nargs="+", metavar="N", help="those of these steps")
    which.add_argument(
        "--around_best",
        type=positive_int,
        metavar="K",
        help="K successive ones, with that of the best validation in their middle",
    )
    parser.add_argument("--output", type=Path, required=True, help="the new run, which must not exist")
    arguments = parser.parse_args()
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.translation.runs.averaging import around_best, newest, of_steps, write_average
    from dist_s2s.translation.runs.load import read_run

    def choose() -> list[str]:
        read_run(arguments.run)
        if arguments.steps is not None:
            chosen = of_steps(arguments.run, arguments.steps)
        elif arguments.around_best is not None:
            chosen = around_best(arguments.run, arguments.around_best)
        else:
            chosen = newest(arguments.run, arguments.last)
        return [path.name for path in chosen]

    with joined_ranks() as ranks:
        names = ranks.on_first(choose)  # training may add one meanwhile
        write_average(arguments.run, [arguments.run / "checkpoints" / name for name in names], arguments.output, ranks)
        if ranks.is_first:
            print(f"the average of {', '.join(names)} of {arguments.run} in {arguments.output}")
    return 0


if __name__ == "__main__":
    run_command(main)
