"""Times whole training steps against the same model on replicated nn.Embedding tables, or against JoeyNMT.

    python benchmarks/train_bench.py --ranks 2 --num_embeddings 8000 250000 --hidden_size 512
    python benchmarks/train_bench.py --peers joeynmt --data train.tsv

A step is all of it: the batch made ready, lookup, forward, backward, clipping and the updates. Ours is the `train`
command's own loop, training/replicated.py the ways to train on nn.Embedding, training/joeynmt_peer.py how JoeyNMT takes
part. Contenders take turns, each in new processes: ours and DDP's are ranks of one thread, joined by gloo over
loopback, JoeyNMT's is one of as many threads as --peer_threads says. All begin with the same weights and see the same
batches; unless losses and gradient norms of their first steps agree, there are no timings, and the status is 1. Peak
memory is that of a whole turn.

Without --data the sentences are synthetic: log-uniform tokens, 8 to 32 of them. With it, --num_embeddings is the size
of the BPE vocabulary of each side, learnt from the file by the sentencepiece of JoeyNMT's environment. That environment
is made in --peers_folder when it is needed first; PIP_EXTRA_INDEX_URL may point to PyTorch's index of CPU wheels.

After the race our parts are timed, in runs of their own.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from rich.console import Console

from common.arguments import settings_of
from common.figures import Disagreement, write_results
from common.peers import JOEYNMT, python_of
from dist_s2s import UserError
from dist_s2s.cli.command_line import run_command
from dist_s2s.distributed import Ranks
from dist_s2s.distributed.precision import settle_precision
from training.breakdown import WARM_UP
from training.options import parse
from training.problems import make_jobs
from training.race import Result, race, run
from training.report import plot, print_breakdowns, print_results

BREAKDOWN_STEPS = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if the contenders disagree, 2 if it cannot be done."""
    options = parse(arguments, __doc__)
    results: list[Result] = []
    breakdowns: dict[int, dict[str, float]] = {}
    skipped: list[str] = []
    try:
        alone = Ranks.alone()
        settle_precision(options.precision, alone, options.embedding_dim, options.hidden_size)  # refuses what it lacks
        python = python_of(JOEYNMT, options.peers_folder) if options.peers else ""
        with Console(stderr=True).status("") as status:
            sizes = sorted(set(options.num_embeddings))
            for jobs in [make_jobs(options, size, python, skipped) for size in sizes]:
                results += race(jobs, python, options.turns, options.seconds, status.update)
                status.update("where a step goes")
                job = replace(jobs[0], steps=WARM_UP + BREAKDOWN_STEPS, breakdown=True)
                breakdowns[job.num_embeddings] = run(python, job).parts
    except Disagreement as error:
        print(error, file=sys.stderr)
        return 1
    except (UserError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print_results(job, results, skipped)
    print_breakdowns(breakdowns)
    figures = {
        # Without paths, which would say nothing elsewhere.
        "settings": {**settings_of(options, "peers_folder"), "data": options.data and options.data.name},
        "config": job.config.model_dump(mode="json"),
        "contenders": [asdict(result) for result in results],
        "skipped": skipped,
        "seconds_of_our_step": breakdowns,
    }
    write_results(options.json, figures)
    if options.plot is not None:
        plot(results, breakdowns, options.plot)
    return 0


if __name__ == "__main__":
    run_command(main)
