"""What a run tells: tables and a progress bar on the screen, metrics.jsonl, TensorBoard, summary.json."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from dist_s2s import UserError, counted
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.storage.durable_files import naming, write_durably
from dist_s2s.storage.metrics import METRICS, parse_line
from dist_s2s.training import schedule
from dist_s2s.training.events import ChunkBegin, Event, OtherValidation, Report, RunEnd, Validation
from dist_s2s.training.parameters import list_parameters, parameter_table, summarize
from dist_s2s.training.patient_output import PatientOutput

if TYPE_CHECKING:
    from accelerate import Accelerator

SAMPLES_AT_VALIDATION = 3
MOST_RANKS_WITH_CURVES = 4  # a curve costs a tracker's time at every report
SECONDS_BETWEEN_LINES = 15  # where there is no terminal for a progress bar


class RunLog:
    """A listener on every rank; only the first prints and writes, and what it cannot write is an error on all of them.

    A context manager: leaving it closes the bar and the trackers.
    """

    def __init__(
        self, run_dir: Path, accelerator: "Accelerator", ranks: Ranks, valid_data: str = "", resume: str = "auto"
    ) -> None:
        """valid_data: what to call the validation data where their scores are shown; resume: training.resume."""
        self._valid_data, self._resume = valid_data, resume
        self.run_dir = run_dir
        self.accelerator = accelerator
        self.ranks = ranks
        self.active = ranks.is_first
        width = None if sys.stdout.isatty() else 120  # rich takes 80 where it cannot ask
        self.console = Console(
            file=cast(TextIO, PatientOutput(sys.stdout)),
            quiet=not self.active,
            highlight=False,
            emoji=False,
            soft_wrap=True,
            width=width,
        )
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not (self.active and self.console.is_terminal),
        )
        self._task = self._bar.add_task("starting", total=1.0, epoch=1)
        self._last_line = time.monotonic()
        self._has_trackers = False  # of which one that has failed to start cannot finish

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        for tracker in self.accelerator.trackers if self._has_trackers else ():
            try:
                tracker.finish()  # accelerate's end_training would also leave the process group
            except Exception as error:  # of whatever kind; what the run has to keep, it has kept
                self.say(f"warning: the tracker {tracker.name} could not finish: {type(error).__name__}: {error}")

    def __call__(self, event: Event) -> None:
        """Write and show what an event is about (collective)."""
        match event:
            case Report(step, values, fraction, by_rank):
                self.metrics(step, {**values, "fraction": fraction}, by_rank)
                self.progress(values, fraction)
            case Validation():
                self._validation(event)
            case OtherValidation(step, bleu, chrf, signature):
                self.metrics(step, {"other_bleu": bleu, "other_chrf": chrf})
                self.say(f"the other domain: BLEU {bleu:.2f} · chrF {chrf:.2f} ({signature})")
            case ChunkBegin():
                self._chunk(event)
            case RunEnd(step, interrupted=True):
                how = "the same command" if self._resume == "auto" else "the command without --training.resume"
                self.say(f"stopped at step {step}, and saved; {how} goes on from here")
            case RunEnd(step, reason):
                self.say(f"finished at step {step}: {reason}")

    def _validation(self, event: Validation) -> None:
        values = {"epoch": event.epoch, "valid_loss": event.loss, "valid_bleu": event.bleu, "valid_chrf": event.chrf}
        self.metrics(event.step, values | {"valid_cut": event.cut, "minutes": event.minutes})
        title = (
            f"step {event.step} · epoch {event.epoch + 1} · {event.minutes:.1f} min · valid loss {event.loss:.4f} · "
            f"valid BLEU {event.bleu:.2f} · chrF {event.chrf:.2f} on {self._valid_data} ({event.signature})"
        )
        self.samples(title, event.rows[:SAMPLES_AT_VALIDATION])
        if event.cut:
            were, of = "was" if event.cut == 1 else "were", counted(len(event.rows), "translation")
            self.say(f"  {event.cut:,} of {of} reached the longest length and {were} cut")
        if event.warning:
            self.say(f"warning: {event.warning}")

    def _chunk(self, chunk: ChunkBegin) -> None:
        new = {"source": chunk.source, "target": chunk.target}
        replaced = {name: sum(old is not None for _, old, _ in changes) for name, changes in new.items()}
        values = {"stream_pairs": chunk.pairs, "dropped_pairs": chunk.dropped}
        values |= {f"new_{name}_words": len(changes) for name, changes in new.items()}
        values |= {f"replaced_{name}_words": count for name, count in replaced.items()}
        self.metrics(chunk.step, values)
        words = " and ".join(
            f"{counted(len(changes), f'new {name} word')}, {replaced[name]:,} in place of others"
            for name, changes in new.items()
        )
        self.say(f"{counted(chunk.pairs, 'pair')} of the stream, {chunk.dropped:,} dropped; {words}")

    def start_trackers(self, config: Mapping[str, Any], progress: schedule.Progress) -> None:
        """Start the trackers, and drop from metrics.jsonl what a run that stands at ``progress`` writes again."""
        path = self.run_dir / METRICS

        def drop_later_lines() -> None:
            if path.exists():
                kept = [
                    line + b"\n"
                    for line in path.read_bytes().splitlines()
                    if (found := parse_line(line)) is not None and not _comes_again(found, progress)
                ]
                write_durably(path, b"".join(kept))

        self._write(lambda: self._tell_trackers(lambda: self.accelerator.init_trackers("dist_s2s", _flat(config))))
        self._has_trackers = True
        self._write(drop_later_lines)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self.console.print(text, markup=False)

    def metrics(
        self, step: int, values: Mapping[str, float], by_rank: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        """Write a line of metrics.jsonl, and a point on each curve of the trackers; ``by_rank`` has a value a rank."""
        line = {"step": step, **values} | ({"ranks": by_rank} if by_rank else {})

        def append() -> None:
            self._tell_trackers(lambda: self.accelerator.log({**values, **_curves(by_rank or {})}, step=step))
            path = self.run_dir / METRICS
            with naming(path), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

        self._write(append)

    def progress(self, values: Mapping[str, float], fraction: float) -> None:
        """Move the bar; without a terminal print a line now and then instead."""
        text = (
            f"loss {values['loss']:.3f} · {values['tokens_per_second']:,.0f} tokens/s · "
            f"exchange {values['exchange_share']:.0%} · distinct ids {values['distinct_id_ratio']:.0%}"
        )
        epoch = int(values["epoch"]) + 1
        self._bar.update(self._task, completed=fraction, description=text, epoch=epoch)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.say(f"epoch {epoch} · {fraction:.0%} · {text}")

    def parameters(self, core: nn.Module, tables: Mapping[str, DistributedEmbedding], verbose: bool = False) -> None:
        """Print the parts of the model, or with ``verbose`` every tensor; write every tensor to parameters.txt."""
        every = list_parameters(core, tables, self.ranks.world_size)
        shown = every if verbose else summarize(every)
        self.console.print(parameter_table("Parameters", shown), soft_wrap=False)
        text = StringIO()
        Console(file=text, width=160).print(parameter_table("Parameters", every))
        self._write(lambda: write_durably(self.run_dir / "parameters.txt", text.getvalue()))

    def samples(self, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """Print (source, reference, hypothesis) triples."""
        self.say(title)
        for source, reference, hypothesis in rows:
            self.say(f"  source      {source}\n  reference   {reference}\n  translation {hypothesis}\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, and the same on the screen."""
        self._write(lambda: write_durably(self.run_dir / "summary.json", json.dumps(summary, indent=1) + "\n"))
        for key, value in summary.items():
            self.say(f"  {key:18} {value}")

    def write_translations(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Write translations.txt: source, reference and hypothesis of every test sentence, separated by tabs."""
        text = "".join("\t".join(row) + "\n" for row in rows)
        self._write(lambda: write_durably(self.run_dir / "translations.txt", text))

    def _tell_trackers(self, function: Callable[[], None]) -> None:
        try:
            with naming(self.run_dir / "tensorboard"):
                function()
        except OSError:
            raise
        except Exception as error:  # others' packages raise what they like, such as for lack of a login
            raise UserError(
                f"a tracker has failed: {type(error).__name__}: {error}; mend it, or leave it out of "
                "training.trackers, and go on with the run"
            ) from error

    def _write(self, function: Callable[[], None]) -> None:
        """Call it on the first rank (collective, because of errors)."""
        self.ranks.together(lambda: function() if self.active else None)


def _curves(by_rank: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return by name what trackers are told of the ranks: of each, or of many the least, the mean and the most."""
    curves: dict[str, float] = {}
    for name, row in by_rank.items():
        if len(row) <= MOST_RANKS_WITH_CURVES:
            curves |= {f"rank_{rank}/{name}": value for rank, value in enumerate(row)}
        else:
            figures = {"least": min(row), "mean": sum(row) / len(row), "most": max(row)}
            curves |= {f"{figure}_of_ranks/{name}": value for figure, value in figures.items()}
    return curves


def _comes_again(line: Mapping[str, float], progress: schedule.Progress) -> bool:
    """Tell whether a line is of a later step, or of a validation that ended just before a kill and was not saved."""
    step, validated = progress.step, progress.validated_step  # the latter is -1 also where other data made it forgotten
    return line["step"] > step or (line["step"] == step and "valid_loss" in line and validated not in (step, -1))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"a": {"b": 1}} as {"a.b": 1}, values as TensorBoard takes them."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
