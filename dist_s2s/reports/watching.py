"""A run's screen on a terminal, again and again until the run ends; once where there is no terminal."""

import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from dist_s2s import UserError
from dist_s2s.reports.history import RunHistory
from dist_s2s.reports.screen import screen
from dist_s2s.storage.lock import holder_of
from dist_s2s.storage.metrics import METRICS
from dist_s2s.storage.run_files import RUN_MANIFEST

SECONDS_BETWEEN_LOOKS = 1.0
RUNNING = "running"


def watch(run_dir: Path, console: Console) -> None:
    """Show the run, and what it writes until it ends.

    Raises:
        UserError: if there is no run.
    """
    if not any((run_dir / name).is_file() for name in (RUN_MANIFEST, METRICS)):
        raise UserError(
            f"{run_dir} is not a run directory (it has no {RUN_MANIFEST}); give the --run_dir of a training"
        )
    history = RunHistory(run_dir)
    if not console.is_terminal:
        columns, lines = shutil.get_terminal_size((120, 40))
        state = state_of(run_dir)
        history.read()
        console.print(screen(str(run_dir), state, history, columns, lines), width=columns)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            state = state_of(run_dir)  # first, so that what it writes last is shown
            history.read()
            live.update(screen(str(run_dir), state, history, *console.size), refresh=True)
            if not state.startswith(RUNNING):
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)


def state_of(run_dir: Path) -> str:
    """Return "running", with the host if it is another one, "finished", or "stopped": killed, or to go on later."""
    holder = holder_of(run_dir)
    finished = _written(run_dir / "summary.json")
    began = -1.0 if holder is None else holder.since
    if finished >= max(began, 0.0):  # a copy's files may be written in any order
        return "finished"
    if holder is None or holder.is_alive is False:
        return "stopped"
    return RUNNING if holder.is_alive else f"{RUNNING} on {holder.host}, as far as can be told from here"


def _written(path: Path) -> float:
    """Return when a file was written, in seconds; -1 if there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return -1.0
