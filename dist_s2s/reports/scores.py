"""The headline numbers: scores of the test data with the intervals of the bootstrap, beside other runs'."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dist_s2s import UserError, counted
from dist_s2s.reports.blocks import Block, Facts, Missing, Note, Section, Table
from dist_s2s.translation.scores.scoring import Row, Scorer
from dist_s2s.translation.scores.significance import System, SystemScore, check_same_pairs, compare, resamples_of

TRANSLATIONS, SUMMARY = "translations.txt", "summary.json"


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
        lines = path.read_bytes().decode("utf-8").split("\n")[:-1]  # a lone \r is part of a sentence
    except FileNotFoundError:
        raise UserError(f"{run_dir} has no {TRANSLATIONS}: it comes when the training ends") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
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


def scores_section(run: System | str, summary: dict[str, Any], others: Sequence[System], tokenizer: str) -> Section:
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
        check_same_pairs([run, *others])
        blocks += _scores(run, others, tokenizer)
    if not summary:
        blocks.append(Missing(f"there is no {SUMMARY}, which comes when the training ends: its totals are not known"))
    else:
        blocks.append(Facts(_totals(summary)))
    return Section("scores", "Scores", blocks)


def _scores(run: System, others: Sequence[System], tokenizer: str) -> list[Block]:
    """Return a table of BLEU and chrF, of which the first run is the baseline of paired tests."""
    name, rows = run
    systems = [run, *others]
    found = compare(systems, Scorer(tokenizer, [reference for _, reference, _ in rows]))
    resamples = resamples_of(len(rows))
    columns = 1 + bool(others and resamples)
    headings = ["run", *(heading for each in found for heading in (each.metric, f"p of {each.metric}")[:columns])]
    table = Table(
        counted(len(rows), "test sentence"),
        headings,
        [
            [each, *(cell for metric in found for cell in _cells(metric.systems[place])[:columns])]
            for place, (each, _) in enumerate(systems)
        ],
    )
    if not resamples:
        return [table, Missing(f"{len(rows):,} sentences are too many to resample, so there are no intervals")]
    how = f"± is half of the 95 % interval of the bootstrap ({resamples:,} resamples of the sentences)"
    against = f"; p is of the paired bootstrap against {name}" if others else ""
    return [table, Note(f"{how}{against}. Signatures: {', '.join(each.bootstrap for each in found)}")]


def _cells(score: SystemScore) -> tuple[str, str]:
    interval = "" if score.interval is None else f" ± {score.interval:.2f}"
    return f"{score.score:.2f}{interval}", "" if score.p is None else f"{score.p:.4f}"


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
