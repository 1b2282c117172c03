"""The report that a training writes of itself. What goes wrong with it is told in a line: the run has succeeded.

The modules that make it are imported when they are needed, so that a training begins without waiting for them.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dist_s2s import UserError
from dist_s2s.text.extras import extra
from dist_s2s.translation.runs.load import best_checkpoint
from dist_s2s.translation.translator import Translator

if TYPE_CHECKING:
    from dist_s2s.reports.collecting import Seen
    from dist_s2s.reports.sentences import Chosen

REPORT = "report.html"
Say = Callable[[str], None]


def see_at_end(translator: Translator, say: Say) -> "Seen | None":
    """Look at the model while its ranks are together (collective); None if that fails.

    Protocol: all tell whether they can make a report. The first rank chooses the sentences, and sends them to all. All
    search for their translations and read their rows of the tables together. A rank that fails alone leaves the group
    soon after, which ends the others' wait.

    Args:
        translator: with the weights of the run's best checkpoint.
        say: prints a line, on the first rank.
    """
    run_dir = translator.config.run_dir
    try:
        from dist_s2s.reports.collecting import see
        from dist_s2s.reports.sentences import Chosen

        translator.ranks.together(_check_extra)  # before anything is computed in vain
        samples, worst, checkpoint = translator.ranks.on_first(lambda: _choose(run_dir))
        chosen = [Chosen(*each) for each in samples], [Chosen(*each) for each in worst]
        return see(translator, chosen, Path(checkpoint), [])
    except Exception as error:  # of whatever kind: a report is not worth a training
        say(_failure(run_dir, error))
        return None


def write_at_end(translator: Translator, seen: "Seen", say: Say) -> None:
    """Write the run's report; for the first rank alone. Calls no collectives, so that no rank has to wait for it."""
    run_dir = translator.config.run_dir
    try:
        from dist_s2s.reports.collecting import assemble
        from dist_s2s.reports.scores import read_translations
        from dist_s2s.reports.writing import write_report

        report = assemble(run_dir, [], read_translations(run_dir), translator, seen)
        size = write_report(report, run_dir / REPORT)
    except Exception as error:
        say(_failure(run_dir, error))
    else:
        say(f"report of the run in {run_dir / REPORT} ({size:,} bytes)")


def _check_extra() -> None:
    from dist_s2s.reports.charts import PURPOSE

    for module in ("matplotlib", "jinja2"):
        extra(module, "analysis", PURPOSE)


def _choose(run_dir: Path) -> "tuple[list[Chosen], list[Chosen], str]":
    """Return samples, the worst sentences and the checkpoint; any error becomes one that the other ranks hear of."""
    try:
        from dist_s2s.reports.scores import read_translations
        from dist_s2s.reports.sentences import choose

        return *choose(read_translations(run_dir)), str(best_checkpoint(run_dir))
    except Exception as error:
        raise UserError(_in_a_line(error)) from error


def _failure(run_dir: Path, error: Exception) -> str:
    older = f"; the {REPORT} there is older" if (run_dir / REPORT).exists() else ""
    command = f"dist-s2s report --run {shlex.quote(str(run_dir))}"
    return f"warning: no {REPORT} was written: {_in_a_line(error)}{older}. To write it later: {command}"


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
