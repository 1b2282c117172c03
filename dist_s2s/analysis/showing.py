"""Answers about embeddings as tables for people."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from dist_s2s import counted
from dist_s2s.analysis.answers import Answer
from dist_s2s.analysis.console import table_console

_BARS = " ▁▂▃▄▅▆▇█"


def show(kind: str, answer: Answer, number: int) -> None:
    """Print an answer.

    Args:
        kind: what was asked: "stats", "similar", "nearest", "analogy" or "plot".
        number: of neighbours that were asked for.
    """
    console = table_console()
    if kind == "plot":
        for line in (
            *answer["notes"],
            f"{counted(len(answer['words']), 'word')} in {answer['output']}: {answer['how']}",
        ):
            console.print(line)
        return
    for word in answer.get("words", []):
        if word["note"]:
            console.print(word["note"])
    names = [word["word"] for word in answer.get("words", [])]
    match kind:
        case "stats":
            console.print(_table(("figure", "value"), _statistics(answer)))
        case "similar":
            cells = ([name, *_numbers(row)] for name, row in zip(names, answer["cosines"], strict=True))
            console.print(_table(("cosine", *names), cells))
        case "nearest":
            for name, found in zip(names, answer["neighbours"], strict=True):
                score = "CSLS" if answer["csls"] else "cosine"
                _show_neighbours(console, (f"nearest to {name}", score), found, number)
        case "analogy":
            score = "3CosMul" if answer["multiply"] else "cosine"
            _show_neighbours(console, (f"{names[0]} : {names[1]} = {names[2]} : ?", score), answer["answers"], number)


def _show_neighbours(console: Console, headings: Sequence[str], found: Sequence[Answer], number: int) -> None:
    console.print(_table(headings, ([each["word"], *_numbers([each["score"]])] for each in found)))
    if len(found) < number:
        console.print(
            f"{counted(number, 'was', 'were')} asked for; no more than {counted(len(found), 'word')} can be neighbours"
        )


def _statistics(answer: Answer) -> Iterable[Sequence[str]]:
    norms, duplicates = answer["norms"], answer["duplicates"]
    free = f", and {answer['free_rows']:,} that no word has yet" if answer["free_rows"] else ""
    yield "rows", f"{answer['num_rows']:,}{free}"
    yield "dimension", f"{answer['dim']:,}"
    yield "rows that are not finite", f"{answer['non_finite']:,}" + _named(answer["non_finite_words"])
    yield "dead rows (all zeros)", f"{answer['dead']:,}" + _named(answer["dead_words"])
    equal = [f"{word} = {first}" for word, first in duplicates["words"]]
    yield "rows equal to another", f"{duplicates['rows']:,}" + _named(equal)
    yield "mean, standard deviation", f"{answer['mean']:.6g}, {answer['std']:.6g}"
    yield "norm: least, mean, largest", ", ".join(f"{norms[key]:.4g}" for key in ("min", "mean", "max"))
    quantiles = (f"{value:.4g} ({share:.0%})" for share, value in norms["quantiles"].items())
    yield "norm: quantiles", ", ".join(quantiles)
    largest = max(norms["counts"])
    bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // largest)] for count in norms["counts"])
    yield "norm: histogram", f"{norms['edges'][0]:.4g} |{bars}| {norms['edges'][-1]:.4g}"
    yield "isotropy", f"{answer['isotropy']:.4f}"
    yield "norm of the mean direction", f"{answer['mean_direction']:.4f}"
    yield "effective rank", f"{answer['effective_rank']:.2f} of {answer['dim']:,}"
    correlation = answer["frequency_correlation"]
    yield "log frequency and norm", "counts are not known" if correlation is None else f"correlation {correlation:.3f}"


def _named(words: Sequence[str]) -> str:
    return f": {', '.join(words)}" if words else ""


def _numbers(values: Iterable[float]) -> list[str]:
    return [f"{value:.4f}" for value in values]


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table()
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="left" if heading == "value" else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
