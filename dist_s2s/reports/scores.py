"""The headline numbers: scores of the test data with the intervals of the bootstrap, beside other runs'."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, Result

from dist_s2s import UserError
from dist_s2s.reports.blocks import Block, Facts, Missing, Note, Section, Table
from dist_s2s.translation.scoring import Row, Scorer

TRANSLATIONS, SUMMARY = "translations.txt", "summary.json"
_RESAMPLES, _FEWEST = 1000, 100
_RESAMPLED = 4_000_000  # sentences in all resamples, which sacreBLEU has in memory at once
Run = tuple[str, Sequence[Row]]  # a run's name, and its translations of the test data


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Return a run's summary; empty if it has none yet.

    Raises:
        UserError: it is damaged.
    """
    path = run_dir / SUMMARY
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(summary, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return summary


def read_translations(run_dir: Path) -> list[Row]:
    """Return source, reference and translation of each test pair.

    Raises:
        UserError: the run has not translated its test data, or the file is damaged.
    """
    path = run_dir / TRANSLATIONS
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise UserError(f"{run_dir} has no {TRANSLATIONS}: it comes when the training ends") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        source, *rest = line.split("\t")
        if len(rest) != 2:
            raise UserError(
                f"{path}, line {number}: source, reference and translation are needed, but not so many tabs"
            )
        rows.append((source, rest[0], rest[1]))
    if not rows:
        raise UserError(f"{path} is empty: the run has no test data")
    return rows


def scores_section(run: Run | str, summary: dict[str, Any], others: Sequence[Run], tokenizer: str) -> Section:
    """Return BLEU and chrF with intervals, what training took, and the comparison with other runs.

    Args:
        run: the run's translations, or why there are none.
        summary: from ``read_summary``.
        others: runs to compare with.
        tokenizer: of BLEU, as ``training.bleu_tokenizer`` names it.

    Raises:
        UserError: another run has translated other sentences.
    """
    blocks: list[Block] = []
    if isinstance(run, str):
        if others:
            raise UserError(f"there is nothing to compare: {run}")
        blocks.append(Missing(run))
    else:
        for name, rows in others:
            _check_same_test(run, (name, rows))
        blocks += _scores(run, others, tokenizer)
    if not summary:
        blocks.append(Missing(f"there is no {SUMMARY}, which comes when the training ends: its totals are not known"))
    else:
        blocks.append(Facts(_totals(summary)))
    return Section("scores", "Scores", blocks)


def _check_same_test(run: Run, other: Run) -> None:
    if [row[:2] for row in run[1]] != [row[:2] for row in other[1]]:
        raise UserError(
            f"{other[0]} cannot be compared with {run[0]}: their {TRANSLATIONS} are of other sentences or references; "
            "compare runs that have the same test data"
        )


def _scores(run: Run, others: Sequence[Run], tokenizer: str) -> list[Block]:
    """Return a table of BLEU and chrF, of which the first run is the baseline of paired tests."""
    name, rows = run
    scorer = Scorer(tokenizer, [reference for _, reference, _ in rows])
    title = f"{len(rows):,} test sentences"
    resamples = min(_RESAMPLES, _RESAMPLED // len(rows))
    if resamples < _FEWEST:
        scores = [(each, scorer.scores(some)) for each, some in (run, *others)]
        cells = [[each, f"{found['bleu']:.2f}", f"{found['chrf']:.2f}"] for each, found in scores]
        why = f"{len(rows):,} sentences are too many to resample, so there are no intervals"
        return [Table(title, ["run", "BLEU", "chrF"], cells), Missing(why)]
    metrics, references = {"bleu": scorer.bleu, "chrf": CHRF()}, [[reference for _, reference, _ in rows]]
    systems: list[tuple[str, Sequence[str]]] = [(each, [row[2] for row in some]) for each, some in (run, *others)]
    signatures, found = PairedTest(systems, metrics, references, "bs", n_samples=resamples)()
    named = [(metric, [each for each in results if isinstance(each, Result)]) for metric, results in found.items()]
    named = [(metric, results) for metric, results in named if results]  # besides them there are the systems' names
    headings = ["run", *(heading for metric, _ in named for heading in (metric, f"p of {metric}")[: 1 + bool(others)])]
    table = Table(
        title,
        headings,
        [
            [each, *(cell for _, results in named for cell in _cells(results[place], results[0])[: 1 + bool(others)])]
            for place, (each, _) in enumerate(systems)
        ],
    )
    how = f"± is half of the 95 % interval of the bootstrap ({resamples:,} resamples of the sentences)"
    against = f"; p is of the paired bootstrap against {name}" if others else ""
    return [table, Note(f"{how}{against}. Signatures: {', '.join(str(each) for each in signatures.values())}")]


def _cells(result: Result, baseline: Result) -> list[str]:
    """Return the score with its interval, and p; that of no difference is 1, for which sacreBLEU has its least one."""
    interval = "" if result.ci is None else f" ± {result.ci:.2f}"
    p = 1.0 if result.score == baseline.score else result.p_value
    return [f"{result.score:.2f}{interval}", "" if result is baseline or p is None else f"{p:.4f}"]


def _totals(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the summary has, in words; runs of older versions have less."""
    shown = {
        "ter": ("TER, of which less is better", "{:.2f}"),
        "valid_loss": ("loss of the validation data", "{:.4f}"),
        "valid_bleu": ("best BLEU of the validation data", "{:.2f}"),
        "valid_chrf": ("best chrF of the validation data", "{:.2f}"),
        "steps": ("steps", "{:,}"),
        "epochs": ("epochs done", "{:,}"),
        "best_step": ("step of the best checkpoint", "{:,}"),
        "seconds": ("seconds, with validations", "{:,.0f}"),
        "tokens_per_second": ("target tokens per second", "{:,}"),
        "world_size": ("ranks", "{:,}"),
        "translations_cut": ("translations cut at their longest length", "{:,}"),
    }
    return [
        (name, form.format(summary[key]))
        for key, (name, form) in shown.items()
        if isinstance(summary.get(key), int | float)
    ]
