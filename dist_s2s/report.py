"""Write a report of a run: one page, to be opened in a browser without a network, of all that is known of it."""

from pathlib import Path

from dist_s2s.cli.command_line import command_parser, program, run_command
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.outputs import check_files


def main() -> int:
    """Read the run, compute what is to be shown, and write the page."""
    prog = program("report")
    check_extra(prog)
    check_extra(prog, "analysis")
    parser = command_parser(prog, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument(
        "--compare", type=Path, action="append", default=[], metavar="RUN", help="another run, of the same test data"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="page to write (default: report.html in the run)")
    parser.add_argument("--words", nargs="+", default=[], metavar="WORD", help="show the similarities of these")
    arguments = parser.parse_args()
    output = arguments.output or arguments.run / "report.html"
    if arguments.output is not None:
        check_files([output])
    from dist_s2s.distributed import joined_ranks  # imports torch, which --help does not need
    from dist_s2s.reports.collecting import collect
    from dist_s2s.reports.writing import write_report

    with joined_ranks() as alone:
        report = collect(arguments.run, arguments.compare, arguments.words, alone)
    size = write_report(report, output)
    print(f"report of {arguments.run} in {output} ({size:,} bytes)")
    return 0


if __name__ == "__main__":
    run_command(main)
