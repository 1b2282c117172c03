"""How fast is a corpus prepared, in how much memory, and how soon does training begin on it?

Generates pairs from the seed, prepares them with `dist-s2s prepare`, and opens the result as a rank of a training does.
Memory is the sum of what all processes have for themselves and their parts of what they share (PSS).
"""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.figures import write_results
from dist_s2s.cli.command_line import run_command

_WORDS = 20_000
_OPEN = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from dist_s2s.preparation.prepared import open_prepared
from dist_s2s.text.batches import global_batches, rank_batch
imported = time.perf_counter()
corpus = open_prepared(Path(sys.argv[1])).train
batches = global_batches(corpus, 2000, 1, 0)
corpus.target_counts()
rank_batch(corpus, batches[0], 0, 1)
ready = time.perf_counter()
for number in range(min(2000, len(batches))):
    rank_batch(corpus, batches[number], 0, 1)
read = time.perf_counter()
memory = {}
for line in open("/proc/self/smaps_rollup"):
    name, value, *_ = line.split()
    memory[name] = value
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(ready - imported, read - ready, memory["Pss:"], memory["Pss_Anon:"], status["VmHWM"].split()[0])
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each number of pairs."""
    parser = make_parser(__doc__)
    parser.add_argument("--pairs", type=positive, nargs="+", default=[1_000_000], help="default: 1,000,000")
    parser.add_argument("--workers", type=positive, default=2, help="default: 2")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--tokenizer", default="bpe", help="of both sides (default: bpe)")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    rows = []
    print(f"{'pairs':>12} {'seconds':>9} {'pairs/s':>9} {'peak MiB':>9} {'ready s':>8} {'then MiB':>9}")
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    for pairs in options.pairs:
        with TemporaryDirectory(dir=options.folder) as folder:
            row = measure(pairs, options.workers, Path(folder), options.tokenizer)
        rows.append(row)
        print(
            f"{pairs:12,} {row['seconds']:9.1f} {row['pairs_per_second']:9,.0f} {row['peak_mib']:9.0f} "
            f"{row['ready_seconds']:8.2f} {row['open_mib']:9.0f}"
        )
    write_results(options.json, {"settings": settings_of(options, "folder"), "rows": rows})
    return 0


def measure(pairs: int, workers: int, folder: Path, tokenizer: str) -> dict[str, float]:
    """Generate, prepare and open a corpus."""
    source = folder / "pairs.tsv"
    generate(source, pairs)
    command = [sys.executable, "-m", "dist_s2s.prepare", str(source), "--output", str(folder / "corpus")]
    command += ["--workers", str(workers)]
    command += [word for side in ("source", "target") for word in (f"--data.{side}_tokenizer", tokenizer)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    if process.wait():
        raise SystemExit(f"{' '.join(command)} has failed")
    seconds = time.perf_counter() - started
    watcher.join()
    opened = subprocess.run(
        [sys.executable, "-c", _OPEN, str(folder / "corpus")], check=True, capture_output=True, text=True
    )
    ready, batches, pss, anonymous, most = map(float, opened.stdout.split())
    return {
        "pairs": pairs,
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "peak_mib": peak[0] / 1024,
        "ready_seconds": ready,
        "seconds_of_2000_batches": batches,
        "open_mib": pss / 1024,
        "open_anonymous_mib": anonymous / 1024,
        "open_peak_mib": most / 1024,
        "corpus_mib": sum(path.stat().st_size for path in (folder / "corpus").iterdir()) / 2**20,
    }


def generate(path: Path, pairs: int) -> None:
    """Write pairs of 4 to 16 words, drawn about as words are in a language: one in six of ten million occurs before."""
    draw = random.Random(1)
    numbers = [int(draw.paretovariate(0.9)) % _WORDS for _ in range(1 << 20)]
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(pairs):
            first, second = draw.randrange(len(numbers) - 8), draw.randrange(len(numbers) - 8)
            chosen = numbers[first : first + draw.randint(2, 8)] + numbers[second : second + draw.randint(2, 8)]
            file.write(f"{' '.join(f's{n}' for n in chosen)}\t{' '.join(f't{n}' for n in chosen)}\n")


def _watch(process: "subprocess.Popen[bytes]", peak: list[int]) -> None:
    """Keep the highest PSS, in KiB, of a process and its children."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_pss(pid) for pid in [process.pid, *_children(process.pid)]))
        time.sleep(0.2)


def _children(pid: int) -> list[int]:
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [child for word in own for child in (int(word), *_children(int(word)))]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    run_command(main)
