"""How many sentences and target tokens per second does search find, greedily and with a beam, in one process?

    python benchmarks/search_bench.py
    python benchmarks/search_bench.py --run runs/multi30k --input test.de --beam_sizes 1 5
    python benchmarks/search_bench.py --run runs/multi30k --quantized runs/multi30k-int8 --input test.tsv
    python benchmarks/search_bench.py --run runs/multi30k --others runs/multi30k-shortlist --input test.tsv

Without --run the model has the size of configs/tatoeba-zh-en.yaml and random weights: its translations never end before
the longest length, --words, which is that of the sources too. With it, the lines of --input, or the first columns of a
TSV, are translated in the batches of `dist-s2s translate`, from text on; --words and the sizes count for nothing.

--quantized is what `dist-s2s export --quantize int8` has made of the run: it translates the same lines. Of a TSV, BLEU
is told too (sacreBLEU, 13a), and of both folders how much memory a process takes to load them, and after a search.
--others are more folders, such as what `dist-s2s export --shortlist` has made of it, each told by its name. --joeynmt
is what quality_bench.py leaves of JoeyNMT, whose best checkpoint translates the same lines in a process of its own.

Folders and beam sizes take turns, --turns times, after a turn that is not counted; figures are medians. CPU seconds are
those of all threads: where they are fewer than seconds times threads, cores have waited, or others have used them.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from sacrebleu.metrics.bleu import BLEU
from torch import nn

from common.arguments import add_outputs, existing_file, make_parser, positive, settings_of
from common.figures import print_table, write_results
from common.peers import JOEYNMT, default_folder, environment_for_programs, python_of
from common.run_memory import memory_of
from dist_s2s.cli.command_line import run_command
from dist_s2s.distributed import joined_ranks
from dist_s2s.distributed.ranks import Ranks
from dist_s2s.models import Hypothesis, LSTMEncoderDecoder, beam_search, best_of_logits
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.text.vocabulary import EOS, SOS, SPECIALS
from dist_s2s.translation.output.start import NEVER_CHOSEN
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.search.options import SearchOptions

Result = TypeVar("Result")
Contender = Callable[[int], dict[str, float]]  # from a beam size to what translating takes, and gives
_PEER = "JoeyNMT"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    with joined_ranks(options.threads) as ranks, ExitStack() as stack:
        runs = {"float32": options.run} | ({} if options.quantized is None else {"int8": options.quantized})
        runs |= {folder.name: folder for folder in options.others}
        contenders = {
            name: _random_model(options) if run is None else _run(run, options, ranks) for name, run in runs.items()
        }
        if options.joeynmt is not None:
            contenders[_PEER] = stack.enter_context(_joeynmt(options))
        cases = [(name, size) for name in contenders for size in options.beam_sizes]
        turns = [{(name, size): contenders[name](size) for name, size in cases} for _ in range(options.turns + 1)][1:]
        threads = torch.get_num_threads()
    figures = {
        (name, size): {key: statistics.median(turn[name, size][key] for turn in turns) for key in turns[0][name, size]}
        for name, size in cases
    }
    rows = [
        [name, str(size), f"{of['sentences'] / of['seconds']:,.1f}", f"{of['tokens'] / of['seconds']:,.0f}"]
        + [f"{of[key]:,.2f}" if key in of else "" for key in ("seconds", "cpu_seconds", "bleu")]
        for (name, size), of in figures.items()
    ]
    headings = ("beam", "sentences/s", "tokens/s", "seconds", "CPU seconds", "BLEU")
    print_table(f"search, {threads} threads", ("weights",), headings, rows)
    by_weights = {name: {str(size): figures[name, size] for size in options.beam_sizes} for name in contenders}
    results: dict[str, object] = {"beam_sizes": by_weights["float32"]}
    if options.joeynmt is not None:
        results["joeynmt"] = by_weights[_PEER]
    if options.others:
        results["others"] = {folder.name: by_weights[folder.name] for folder in options.others}
    if options.quantized is not None:
        sentences = [source for source, _ in _pairs(options)]
        two = ("float32", "int8")
        memory = {name: memory_of(runs[name], sentences, max(options.beam_sizes)) for name in two}
        for name, taken in memory.items():
            print(f"{name}: {taken['loaded_mib']:.1f} MiB once loaded, {taken['searched_mib']:.1f} after a search")
        results |= {"int8": by_weights["int8"], "memory": memory}
    settings = settings_of(options, "peers_folder") | {"others": [folder.name for folder in options.others]}
    for name in ("run", "quantized", "input", "joeynmt"):
        path = getattr(options, name)
        settings[name] = None if path is None else path.name
    write_results(options.json, {"settings": settings, "threads": threads, **results})
    return 0


def _timed(work: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    """Return what the work returns, and how long it takes."""
    started, cpu_started = time.perf_counter(), time.process_time()
    found = work()
    return found, {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_started}


def _tokens(found: list[Hypothesis]) -> int:
    return sum(len(each.ids) + (not each.is_cut) for each in found)  # the end is one


def _bleu(texts: list[str], references: list[str]) -> dict[str, float]:
    """Return the translations' BLEU, unless there is a sentence without a reference."""
    return {"bleu": float(BLEU().corpus_score(texts, [references]).score)} if all(references) else {}


def _random_model(options: argparse.Namespace) -> Contender:
    torch.manual_seed(0)
    size, dim, words = options.num_embeddings, options.embedding_dim, options.words
    output = nn.Linear(options.hidden_size, size)
    model = LSTMEncoderDecoder(output, dim, options.hidden_size).eval()
    table = DistributedEmbedding(size, dim)
    with torch.no_grad():
        output.bias[EOS] = -1e4
    batches = torch.randint(len(SPECIALS), size, (options.sentences, words)).split(options.batch_size)

    def find(beam_size: int) -> list[Hypothesis]:
        found = list[Hypothesis]()
        for ids in batches:
            lengths = torch.full((len(ids),), words)
            with torch.no_grad():
                source = table(ids)
            best_tokens = partial(best_of_logits, forbidden=NEVER_CHOSEN)
            beams = beam_search(model, source, lengths, table, best_tokens, SOS, EOS, lengths, beam_size)
            found += [best for best, *_ in beams]
        return found

    def measure(beam_size: int) -> dict[str, float]:
        found, figures = _timed(lambda: find(beam_size))
        return {**figures, "sentences": len(found), "tokens": _tokens(found)}

    return measure


def _run(run_dir: Path, options: argparse.Namespace, ranks: Ranks) -> Contender:
    translator, pairs = load_translator(run_dir, ranks), _pairs(options)
    sentences, references = [source for source, _ in pairs], [target for _, target in pairs]

    translator.batching = translator.batching.with_options(options.batch_size, None)

    def translate(beam_size: int) -> tuple[list[str], int]:
        found = translator.search(sentences, SearchOptions.of(translator.config, beam_size))
        return [translator.target.decode(each.ids) for each in found], _tokens(found)

    def measure(beam_size: int) -> dict[str, float]:
        (texts, tokens), figures = _timed(lambda: translate(beam_size))
        return {**figures, "sentences": len(texts), "tokens": tokens, **_bleu(texts, references)}

    return measure


@contextmanager
def _joeynmt(options: argparse.Namespace) -> Iterator[Contender]:
    """Yield JoeyNMT as a contender; its process ends with the context."""
    pairs = _pairs(options)
    references = [target for _, target in pairs]
    with TemporaryDirectory(prefix="search-bench-") as folder:
        file = Path(folder) / "sentences.json"
        file.write_text(json.dumps([source for source, _ in pairs]), encoding="utf-8")
        arguments = map(str, (options.joeynmt.absolute(), file, options.batch_size, torch.get_num_threads()))
        program = [python_of(JOEYNMT, options.peers_folder), "-W", "ignore", "-m", "training.joeynmt_search"]
        with subprocess.Popen(
            [*program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment_for_programs(),
        ) as peer:
            asked, answers = peer.stdin, peer.stdout
            assert asked is not None, "it is a pipe"
            assert answers is not None, "it is a pipe"

            def measure(beam_size: int) -> dict[str, float]:
                print(beam_size, file=asked, flush=True)
                if not (answer := answers.readline()):
                    raise SystemExit("JoeyNMT has ended; its words are above")
                found = json.loads(answer)
                texts = found.pop("texts")
                return {**found, "sentences": len(texts), **_bleu(texts, references)}

            yield measure
            asked.close()


def _pairs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the sentences of --input with their translations, empty without one."""
    rows = [line.split("\t") for line in options.input.read_text(encoding="utf-8").rstrip("\n").split("\n")]
    return [(row[0], row[1] if len(row) > 1 else "") for row in rows[: options.sentences]]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, help="a run to translate with; else a model of random weights")
    parser.add_argument("--quantized", type=Path, help="the same run with int8 weights, to be compared; with --run")
    parser.add_argument("--others", type=Path, nargs="+", default=[], help="more runs to be compared; with --run")
    parser.add_argument("--joeynmt", type=Path, metavar="FOLDER", help="JoeyNMT's, of quality_bench.py; with --run")
    parser.add_argument("--peers_folder", type=Path, default=default_folder())
    parser.add_argument("--input", type=existing_file, help="source sentences, a line each; with --run")
    parser.add_argument("--beam_sizes", type=positive, nargs="+", default=[1, 5])
    parser.add_argument("--sentences", type=positive, default=256, help="at most so many")
    parser.add_argument("--batch_size", type=positive, default=64, help="sentences that are translated together")
    parser.add_argument("--words", type=positive, default=12, help="of each source and translation")
    parser.add_argument("--num_embeddings", type=positive, default=6284)
    parser.add_argument("--embedding_dim", type=positive, default=256)
    parser.add_argument("--hidden_size", type=positive, default=512)
    parser.add_argument("--threads", type=positive, help="default: all cores")
    parser.add_argument("--turns", type=positive, default=5)
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if (options.run is None) != (options.input is None):
        parser.error("--run and --input go together")
    if (options.quantized is not None or options.others or options.joeynmt is not None) and options.run is None:
        parser.error("--quantized, --others and --joeynmt need --run, with which they are compared")
    names = ["float32", *["int8"] * (options.quantized is not None), *(folder.name for folder in options.others)]
    if len(set(names)) < len(names):
        parser.error(f"two folders would have one name in the table: {', '.join(names)}")
    return options


if __name__ == "__main__":
    run_command(main)
