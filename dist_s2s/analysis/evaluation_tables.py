"""What an evaluation has found, as tables for people."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from dist_s2s import counted
from dist_s2s.analysis.answers import Answer
from dist_s2s.analysis.console import table_console
from dist_s2s.analysis.probe_tables import number_table, range_in_words, share_in_words, word_table

_METRICS = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER, of which less is better"}


def show_evaluation(answer: Answer) -> None:
    """Print the scores of all systems, where they lie by length and frequency, and where systems differ most."""
    console, systems = table_console(), [answer, *answer["compared"]]
    names = told_apart([each["system"] for each in systems])
    systems = [{**each, "system": name} for each, name in zip(systems, names, strict=True)]
    answer, *others = systems
    console.print(f"{counted(answer['sentences'], 'sentence')} of {answer['data']}")
    console.print(_score_table(systems))
    console.print(_length_table(systems))
    if answer["by_frequency"] is not None:
        if len(systems) == 1:
            console.print(word_table("occurrences in training", answer["by_frequency"]))
        else:
            console.print(_frequency_table(systems))
    for other in others:
        console.print(f"{other['system']} beside {answer['system']}, sentence by sentence:")
        console.print(_wins_table(other))
        if other["most_different"]:
            console.print(_example_table(answer, other))
    for line in _remarks(answer, len(systems) > 1):
        console.print(line)


def told_apart(names: Sequence[str]) -> list[str]:
    """Return the ends of paths, no longer than it takes to tell them apart; the same path again gets a number.

    Tables have little room for each, and where whole paths are cut to fit, those of one folder look alike.
    """
    parts = [tuple(Path(run).parts or (run,) for run in name.split(" + ")) for name in names]  # of an ensemble several
    ends = list(names)
    for length in range(1, max(len(run) for each in parts for run in each) + 1):
        ends = [" + ".join(str(Path(*run[-length:])) for run in each) for each in parts]
        if len(set(ends)) == len(set(parts)):
            break
    return [
        end if (again := ends[:place].count(end)) == 0 else f"{end} ({again + 1})" for place, end in enumerate(ends)
    ]


def _score_table(systems: Sequence[Answer]) -> Table:
    """Return a row for each score, a column for each system; what no system has is left out."""
    table = number_table("", *(each["system"] for each in systems))
    for key, name in _METRICS.items():
        if systems[0][key] is not None:
            table.add_row(name, *(_score(each, key) for each in systems))
    rows = {
        "perplexity of a token of the references": [_perplexity(each, "per_token") for each in systems],
        "of a character": [_perplexity(each, "per_character") for each in systems],
        "unknown tokens in them": [_unknown(each) for each in systems],
        "length ratio": [share_in_words(each["lengths"]["ratio"]) for each in systems],
        "brevity penalty": [share_in_words(each["lengths"]["brevity_penalty"]) for each in systems],
        "translations cut": [_count(each.get("translations_cut")) for each in systems],
        "beam size": [_count(each.get("beam_size")) for each in systems],
        "seconds": [f"{each['seconds']:.1f}" if "seconds" in each else "" for each in systems],
    }
    for name, cells in rows.items():
        if any(cells):
            table.add_row(name, *cells)
    return table


def _length_table(systems: Sequence[Answer]) -> Table:
    """Return scores by how many words the source has, with the number of sentences."""
    headings = ["BLEU", "chrF", "length ratio"]
    if len(systems) > 1:
        headings = [f"{heading}, {each['system']}" for each in systems for heading in headings[:2]]
    table = number_table("source words", "sentences", *headings)
    for rows in zip(*(each["by_length"] for each in systems), strict=True):
        scores = [f"{row[key]:.2f}" for row in rows for key in ("bleu", "chrf")]
        ratio = [share_in_words(rows[0]["length_ratio"])] if len(systems) == 1 else []
        table.add_row(range_in_words(rows[0]), f"{rows[0]['sentences']:,}", *scores, *ratio)
    return table


def _frequency_table(systems: Sequence[Answer]) -> Table:
    """Return F1 of words by how often the training data of the first system have them."""
    headings = (f"F1, {each['system']}" for each in systems)
    table = number_table("occurrences in training", "reference words", *headings)
    for rows in zip(*(each["by_frequency"] for each in systems), strict=True):
        shares = (share_in_words(row["f1"]) for row in rows)
        table.add_row(range_in_words(rows[0]), f"{rows[0]['expected']:,}", *shares)
    return table


def _wins_table(other: Answer) -> Table:
    table = number_table("source words", "better", "equal", "worse")
    for row in other["wins"]:
        table.add_row(range_in_words(row), *(f"{row[key]:,}" for key in ("better", "equal", "worse")))
    return table


def _example_table(first: Answer, other: Answer) -> Table:
    """Return the sentences whose chrF differs most: those that the other system translates better come first."""
    table = number_table("pair", "chrF")
    for heading in ("source", "reference", first["system"], other["system"]):
        table.add_column(heading, overflow="fold")
    for row in other["most_different"]:
        chrf = f"{row['first_chrf']:.1f} → {row['other_chrf']:.1f}"
        table.add_row(f"{row['number']:,}", chrf, *(row[key] for key in ("source", "reference", "first", "other")))
    return table


def _remarks(answer: Answer, is_compared: bool) -> list[str]:
    bootstrap = answer["bootstrap"]
    if bootstrap["resamples"]:
        lines = [f"± is half of the 95 % interval of the bootstrap ({bootstrap['resamples']:,} resamples)"]
        if is_compared:
            lines[0] += f"; p is of the paired bootstrap against {answer['system']}"
    else:
        lines = ["there are too many sentences to resample, so there are no intervals"]
    keys = [key for key in ("signature", "chrf_signature", "ter_signature") if answer[key]]
    lines += [f"{key.replace('_', ' '):15} {answer[key]}" for key in keys]
    return [*lines, *(f"note: {note}" for note in answer["notes"])]


def _score(system: Answer, key: str) -> str:
    interval, p = system[f"{key}_interval"], system[f"{key}_p"]
    return (
        f"{system[key]:.2f}"
        + ("" if interval is None else f" ± {interval:.2f}")
        + ("" if p is None else f", p {p:.3f}")
    )


def _perplexity(system: Answer, key: str) -> str:
    return "" if system["perplexity"] is None else f"{system['perplexity'][key]:,.2f}"


def _unknown(system: Answer) -> str:
    found = system["perplexity"]
    return "" if found is None else f"{found['unknown_tokens']:,} of {found['tokens']:,}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
