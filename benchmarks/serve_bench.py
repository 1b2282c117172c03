"""How long does a translation over HTTP take while several clients ask at once?

    python benchmarks/serve_bench.py --run RUN --input FILE --requests 1000 --clients 8 --words 10 --beam_size 5

It starts `dist-s2s serve` on the run, and as many clients as asked for: each sends a sentence, waits for the
answer, and sends the next. Sentences are the lines of FILE, or the first columns of a TSV, that have ``--words`` tokens
for the run. A request whose answer is not a translation is lost. Afterwards `dist-s2s translate` translates the same
sentences, in batches of its own. Exits with status 1 if a request was lost, or a translation differs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from common.arguments import add_outputs, existing_file, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.translation.runs.load import read_run

_SECONDS_TO_STOP = 60
Reply = tuple[float, str | None]  # seconds, and the translation; None if it was lost


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    sentences = _sentences(options.run, options.input, options.words)
    if not sentences:
        print(f"error: no line of {options.input} has {options.words} tokens; give another --words", file=sys.stderr)
        return 2
    asked = list(islice(cycle(sentences), options.requests))
    with _service(options.run, options.ranks) as address:
        _ask(address, sentences[: 4 * options.clients], options.clients, options.beam_size)  # warms up
        started = time.perf_counter()
        replies = _ask(address, asked, options.clients, options.beam_size)
        wall = time.perf_counter() - started
    expected = dict(zip(sentences, _translate(options.run, sentences, options.beam_size), strict=True))
    lost = sum(text is None for _, text in replies)
    pairs = zip(asked, replies, strict=True)
    differ = sum(text is not None and text != expected[sentence] for sentence, (_, text) in pairs)
    cuts = statistics.quantiles([seconds for seconds, _ in replies], n=100)
    figures = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "requests_per_second": len(asked) / wall}
    title = f"{len(asked):,} requests of {len(sentences):,} sentences, {options.clients} clients, {options.ranks} ranks"
    cells = [f"{1000 * figures[name]:,.0f}" for name in ("p50", "p95", "p99")]
    headings = ("p50, ms", "p95, ms", "p99, ms", "requests/s", "lost", "differ")
    print_table(title, (), headings, [[*cells, f"{figures['requests_per_second']:.1f}", str(lost), str(differ)]])
    settings = settings_of(options) | {"run": options.run.name, "input": options.input.name}
    write_results(options.json, {"settings": settings, **figures, "lost": lost, "differ": differ})
    return int(lost + differ > 0)


def _sentences(run_dir: Path, file: Path, words: int) -> list[str]:
    """Return the distinct lines that have so many tokens."""
    lines = [line.partition("\t")[0] for line in file.read_text(encoding="utf-8").splitlines()]
    encoded = read_run(run_dir).source.encode_all(lines)
    return list(dict.fromkeys(line for line, ids in zip(lines, encoded, strict=True) if len(ids) == words))


@contextmanager
def _service(run_dir: Path, ranks: int) -> Iterator[str]:
    """Start the service; yield host and port."""
    command = [sys.executable, "-m", "dist_s2s.cli.main", "serve", "--run", str(run_dir), "--port", "0"]
    if ranks > 1:
        command += ["--ranks", str(ranks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        line = service.stdout.readline()
        try:
            address = next((word for word in line.split() if word.startswith("http://")), None)
            if address is None:
                raise SystemExit("the service has not started; its words are above")
            yield urlsplit(address).netloc
        finally:
            service.terminate()
            service.wait(_SECONDS_TO_STOP)


def _ask(address: str, sentences: Sequence[str], clients: int, beam_size: int) -> list[Reply]:
    """Have so many clients ask for all translations, each the next that nobody has asked for."""
    replies: list[Reply] = [(0.0, None)] * len(sentences)
    numbers = iter(range(len(sentences)))  # of a C iterator no number is taken twice

    def client() -> None:
        connection = HTTPConnection(address, timeout=60)
        while (number := next(numbers, None)) is not None:
            started = time.perf_counter()
            text = _reply(connection, sentences[number], beam_size)
            replies[number] = (time.perf_counter() - started, text)
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        for each in [pool.submit(client) for _ in range(clients)]:
            each.result()
    return replies


def _reply(connection: HTTPConnection, sentence: str, beam_size: int) -> str | None:
    try:
        connection.request("POST", "/translate", json.dumps({"text": sentence, "beam_size": beam_size}))
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException):
        connection.close()  # the next request opens it again
        return None
    return json.loads(content)["translations"][0]["text"] if answer.status == 200 else None


def _translate(run_dir: Path, sentences: Sequence[str], beam_size: int) -> list[str]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "in.txt"
        file.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
        command = [sys.executable, "-m", "dist_s2s.translate", "--run", str(run_dir), "--input", str(file)]
        done = subprocess.run(
            [*command, "--beam_size", str(beam_size)], check=True, stdout=subprocess.PIPE, encoding="utf-8"
        )
    return done.stdout.split("\n")[:-1]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--input", type=existing_file, required=True, help="source sentences, a line each")
    parser.add_argument("--ranks", type=positive, default=1)
    parser.add_argument("--requests", type=positive, default=1000, help="2 at least; default: 1000")
    parser.add_argument("--clients", type=positive, default=8)
    parser.add_argument("--words", type=positive, default=10)
    parser.add_argument("--beam_size", type=positive, default=5)
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if options.requests < 2:
        parser.error("--requests must be 2 at least, for quantiles")
    return options


if __name__ == "__main__":
    run_command(main)
