"""Look at the word vectors of a trained run: statistics, similarities, neighbours, analogies and maps."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dist_s2s import UserError
from dist_s2s.cli.command_line import command_parser, positive_int, program, run_command
from dist_s2s.cli.extras import check_extra
from dist_s2s.cli.outputs import check_files, write_json

if TYPE_CHECKING:
    from dist_s2s.analysis.answers import Answer, SavedSide

_PLOTTED = 300  # words of a map, if none is named


def main() -> int:
    """Answer a question about the rows of one table, which are read block by block."""
    prog = program("embeddings")
    check_extra(prog)
    parser = _parser(prog)
    options = parser.parse_args()
    if "run" not in options:
        parser.error("--run RUN is needed")
    file = getattr(options, "json", None)
    check_files([file, getattr(options, "output", None)])
    from dist_s2s.analysis import answers  # imports torch, which --help does not need
    from dist_s2s.analysis.showing import show

    saved = answers.SavedSide.open(options.run, getattr(options, "side", "source"))
    match options.question:
        case "stats":
            answer = answers.statistics(saved)
        case "similar":
            answer = answers.similarities(saved, options.words)
        case "nearest":
            answer = answers.nearest(saved, options.words, options.number, csls=options.csls)
        case "analogy":
            words = [options.a, options.b, options.c]
            answer = answers.analogy(saved, words, options.number, multiply=options.method == "multiply")
        case "plot":
            answer = _plot(saved, options)
    show(options.question, answer, getattr(options, "number", None) or 0)
    if file is not None:
        write_json({"checkpoint": str(saved.checkpoint), "side": saved.name, options.question: answer}, file)
    return 0


def _plot(saved: "SavedSide", options: argparse.Namespace) -> "Answer":
    """Write the map in the form that the file's suffix names, and return it."""
    from dist_s2s.analysis.map_page import write_page
    from dist_s2s.analysis.map_picture import draw_map
    from dist_s2s.analysis.pictures import check_format
    from dist_s2s.analysis.word_map import map_words, write_parquet
    from dist_s2s.text.extras import extra

    output, title = options.output, f"{saved.name} words of {options.run}"
    suffix = output.suffix.lower()
    if suffix == ".parquet":
        extra("pyarrow.parquet", "parquet", "writing Parquet")  # before the work, as the other mistakes
    elif suffix != ".html":
        check_format(output, "a map")
    if options.words and options.number is not None:
        raise UserError(
            "--number is how many of the most frequent words to plot, but here words are named: leave it out"
        )
    found = map_words(saved, options.words, options.number or _PLOTTED, options.method)
    match suffix:
        case ".html":
            write_page(found, title, output)
        case ".parquet":
            write_parquet(found, output)
        case _:
            warning = draw_map(found.places, found.words, title, found.how, output, equal=options.method == "pca")
            found.notes.extend([warning] if warning else [])
    return {**found.answer(), "output": str(output)}


def _parser(prog: str) -> argparse.ArgumentParser:
    # Before the question or after it; a default of the second would hide what was given to the first.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--run", type=Path, help="run directory")
    common.add_argument("--side", choices=("source", "target"), help="whose vectors (default: source)")
    common.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    number = argparse.ArgumentParser(add_help=False)
    number.add_argument("--number", type=positive_int, default=10, metavar="K", help="of words to show (default: 10)")
    parser = command_parser(prog, __doc__, parents=[common])
    questions = parser.add_subparsers(dest="question", required=True, metavar="stats|similar|nearest|analogy|plot")

    def add(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return questions.add_parser(name, help=text, description=f"{text}.", parents=[common, *parents])

    add("stats", "figures of the whole table")
    add("similar", "cosines of all pairs of words").add_argument("words", nargs="+", metavar="WORD")
    nearest = add("nearest", "the words closest to each word, by cosine", number)
    nearest.add_argument("words", nargs="+", metavar="WORD")
    nearest.add_argument(
        "--csls",
        action="store_true",
        help="closest by CSLS, which ranks words lower that are close to everything; compares all rows with all",
    )
    analogy = add("analogy", "what is to C as B is to A", number)
    for letter in "abc":
        analogy.add_argument(letter, metavar=letter.upper())
    analogy.add_argument(
        "--method", choices=("add", "multiply"), default="add", help="add (default): 3CosAdd; multiply: 3CosMul"
    )
    plot = add("plot", "a map of words: named ones, or the most frequent")
    plot.add_argument("words", nargs="*", metavar="WORD")
    plot.add_argument("--number", type=positive_int, metavar="N", help=f"of words, if none is named ({_PLOTTED})")
    plot.add_argument("--method", choices=("pca", "tsne"), default="pca", help="of projection (default: pca)")
    plot.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="picture such as map.png; map.html, a page to look around in; or map.parquet, for embedding-atlas",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
