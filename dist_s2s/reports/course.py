"""How a training went: its curves, where its time went, and whether its ranks had the same to do."""

import math
from collections.abc import Sequence

from dist_s2s import counted
from dist_s2s.reports.blocks import Bars, Block, Lines, Missing, Note, Section, Table
from dist_s2s.reports.history import Figures, RunHistory, findings, hottest, parts_of

_MOST_POINTS = 400  # of a curve
_MOST_RANKS = 64  # with bars of their own
_MIB = 1 << 20


def training_section(history: RunHistory) -> Section:
    """Return the curves of losses, scores and speed."""
    charts = (
        ("Loss", "loss per target token", {"loss": "training", "valid_loss": "validation"}),
        ("Scores of the validation data", "score", {"valid_bleu": "BLEU", "valid_chrf": "chrF"}),
        ("Speed", "target tokens per second", {"tokens_per_second": "tokens per second"}),
    )
    blocks: list[Block] = []
    for title, unit, names in charts:
        lines = {name: _thinned(history.curves[key]) for key, name in names.items() if history.curves[key]}
        blocks.append(
            Lines(title, "step", unit, lines) if lines else Missing(f"{title}: metrics.jsonl has no such figures")
        )
    if history.curves["loss"] and history.curves["valid_loss"]:
        blocks.append(Note("Dropout and label smoothing, if any, raise the loss in training, but not in validation."))
    if history.damaged:
        blocks.append(Missing(f"{counted(history.damaged, 'line')} of metrics.jsonl cannot be read: left out"))
    return Section("training", "Training", blocks)


def time_section(history: RunHistory) -> Section:
    """Return where the time of a step went, in the mean of the whole training."""
    ranks, blocks = history.ranks(), list[Block]()
    if ranks:
        names = parts_of(ranks)
        means = {name: 1000 * _mean(ranks[f"{name}_seconds"]) for name in (*names, "step", "waited")}
        blocks.append(
            Bars("Parts of a step", "milliseconds", names, {"mean of the ranks": [means[name] for name in names]})
        )
        blocks.append(
            Note(
                f"A step took {means['step']:,.1f} ms, in the mean of all reports and ranks. Within its parts a rank "
                f"waited {means['waited']:,.1f} ms for others."
            )
        )
        blocks += [Note(f"{line}.") for line in findings(ranks)]
    else:
        blocks.append(
            Missing("metrics.jsonl has no figures of the ranks: an older version wrote it, or there is no report yet")
        )
        if "exchange_share" in history.latest:
            share = f"{history.latest['exchange_share']:.1%}"
            blocks.append(Note(f"In its last report the exchange of rows took {share} of the time."))
    return Section("time", "Where the time went", blocks)


def balance_section(history: RunHistory) -> Section:
    """Return what each rank asked for, served and waited."""
    ranks, blocks = history.ranks(), list[Block]()
    if not ranks:
        blocks.append(Missing("metrics.jsonl has no figures of the ranks, as above"))
    elif len(ranks["ids"]) == 1:
        blocks.append(Note("One rank: it owns all rows, and there is nothing to balance."))
    else:
        blocks += _balance(ranks)
    return Section("balance", "Balance of ranks", blocks)


def _balance(ranks: Figures) -> list[Block]:
    """Return charts and a table; of very many ranks the table has the first and the hottest."""
    count = len(ranks["ids"])
    hot, load = hottest(ranks["rows_served"])
    shown = list(range(min(count, _MOST_RANKS)))
    shown += [hot] if hot not in shown else []
    names = [str(rank) for rank in shown]
    waits = [1000 * ranks["waited_seconds"][rank] for rank in shown]
    headings = ("rank", "ids", "distinct ids", "rows served", "waited ms", "MiB sent", "MiB held")
    table = [
        [
            str(rank),
            *(f"{ranks[name][rank]:,.0f}" for name in ("ids", "distinct_ids", "rows_served")),
            f"{1000 * ranks['waited_seconds'][rank]:,.1f}",
            f"{ranks['bytes_sent'][rank] / _MIB:,.2f}",
            f"{ranks['memory_bytes'][rank] / _MIB:,.0f}",
        ]
        for rank in shown
    ]
    note = f"Owner {hot} serves most rows: {load:.2f} times an even share."
    if count > len(shown):
        note += f" {len(shown):,} of {count:,} ranks are shown."
    return [
        Note(note),
        Bars("Rows served in a step", "rows", names, {"owner": [ranks["rows_served"][rank] for rank in shown]}),
        Bars("Time that a rank waits for others in a step", "milliseconds", names, {"rank": waits}),
        Table("What a rank does in a step", headings, table),
    ]


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Return every so many points, and the last one, so that a page stays small."""
    every = -(-len(points) // _MOST_POINTS)
    return [*points[:-1:every], points[-1]]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
