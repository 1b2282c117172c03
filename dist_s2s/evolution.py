"""Show how the vectors of words moved while a run trained: a table, and a picture of small multiples."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dist_s2s import UserError, counted
from dist_s2s.cli.command_line import command_parser, program, run_command
from dist_s2s.cli.extras import check_extra

if TYPE_CHECKING:
    from dist_s2s.storage.recorded_vectors import RecordedVectors


def main() -> int:
    """Read what the run has recorded of one side, print the table, and draw the picture."""
    prog = program("evolution")
    check_extra(prog)
    parser = command_parser(prog, __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run that has training.record_vectors_every")
    parser.add_argument("--side", choices=("source", "target"), default="source", help="whose words (default: source)")
    parser.add_argument("--words", nargs="+", metavar="WORD", help="some of the recorded words (default: all)")
    parser.add_argument("--output", type=Path, help="picture to write, such as moves.png; replaced if it exists")
    arguments = parser.parse_args()
    records = _read(arguments.run, arguments.side, arguments.words)
    title = f"{arguments.side} words of {arguments.run}"
    from dist_s2s.analysis.console import table_console
    from dist_s2s.analysis.evolution_table import evolution_table

    table_console().print(evolution_table(records, title))
    if arguments.output is not None:
        from dist_s2s.analysis.evolution_picture import draw_evolution

        warning = draw_evolution(records, title, arguments.output)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"{counted(len(records.words), 'word')} at {counted(len(records.steps), 'step')} in {arguments.output}")
    return 0


def _read(run_dir: Path, side: str, names: list[str] | None) -> "RecordedVectors":
    """Return the records of the words that are named, or of all."""
    from dist_s2s.storage.recorded_vectors import RecordedVectors, vectors_file

    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is not a run directory")
    try:
        records = RecordedVectors.load(vectors_file(run_dir, side))
    except FileNotFoundError:
        raise UserError(
            f"{run_dir} has recorded no vectors yet: train with training.record_vectors_every, up to a checkpoint"
        ) from None
    if names is None:
        return records
    known = {word.word: word for word in records.words}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{unknown[0]!r} is not among the recorded {side} words; they are: {' '.join(known)}")
    return records.of_words([known[name] for name in dict.fromkeys(names)])


if __name__ == "__main__":
    run_command(main)
