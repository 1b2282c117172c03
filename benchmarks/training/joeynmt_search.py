"""JoeyNMT's part of search_bench.py, run by the interpreter of its environment, without dist_s2s.

    python -m training.joeynmt_search FOLDER SENTENCES BATCH_SIZE THREADS

FOLDER is what quality_bench.py leaves of JoeyNMT, and its best checkpoint translates. SENTENCES is a JSON file of
strings. For each beam size, a line of stdin, all sentences are translated, long ones beside long ones as ours are, and
what that took is a JSON object on a line of stdout.
"""

# mypy: disable-error-code="import-not-found"

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.joeynmt_quality import settings


def translator(folder: Path) -> Callable[[list[str], int], tuple[list[str], int]]:
    """Return what translates a batch with a beam: texts, and the number of their tokens, ends counted."""
    from joeynmt.config import parse_global_args
    from joeynmt.prediction import predict, prepare

    config = settings(json.loads((folder / "job.json").read_text(encoding="utf-8")), folder)
    args = parse_global_args(config, rank=0, mode="translate")
    model, _, _, data = prepare(args, rank=0, mode="translate")

    def translate(batch: list[str], beam_size: int) -> tuple[list[str], int]:
        data.reset_cache()
        for sentence in batch:
            data.set_item(sentence)
        test = args.test._replace(beam_size=beam_size, beam_alpha=1.0, batch_size=len(batch), batch_type="sentence")
        _, _, texts, tokens, _, _ = predict(
            model, data, args.device, args.n_gpu, args=test, autocast=args.autocast, num_workers=args.num_workers
        )
        return texts, sum(map(len, tokens))

    return translate


def main(folder: str, sentences: str, batch_size: str, threads: str) -> None:
    """Run the command."""
    torch.set_num_threads(int(threads))
    torch.set_flush_denormal(True)
    answers, sys.stdout = sys.stdout, sys.stderr  # JoeyNMT's own words do not come among the answers
    lines: list[str] = json.loads(Path(sentences).read_text(encoding="utf-8"))
    order = sorted(range(len(lines)), key=lambda number: len(lines[number]))
    size = int(batch_size)
    batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
    translate = translator(Path(folder))
    for line in sys.stdin:
        found, count = [""] * len(lines), 0
        started, cpu_started = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for batch in batches:
                texts, tokens = translate([lines[number] for number in batch], int(line))
                count += tokens
                for number, text in zip(batch, texts, strict=True):
                    found[number] = text
        figures: dict[str, Any] = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu_started,
            "tokens": count,
            "texts": found,
        }
        print(json.dumps(figures), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
