"""Show a run in the terminal while it trains, or when it has ended: its curves, its ranks, and what is slow."""

from pathlib import Path

from dist_s2s.cli.command_line import command_parser, program, run_command
from dist_s2s.cli.extras import check_extra


def main() -> int:
    """Follow what the run writes, until it ends."""
    prog = program("watch")
    check_extra(prog)
    parser = command_parser(prog, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory; Ctrl-C ends the watching, not the run")
    arguments = parser.parse_args()
    from rich.console import Console

    from dist_s2s.reports.watching import watch

    watch(arguments.run, Console(highlight=False, emoji=False, markup=False))
    return 0


if __name__ == "__main__":
    run_command(main)
