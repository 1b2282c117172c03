"""What nn.Embedding, TorchRec, Megatron-Core and dist_s2s can do, each tried by a small program.

    python benchmarks/compare_features.py --system dist_s2s
    python benchmarks/compare_features.py --system torchrec --python peers/torchrec/bin/python --feature padding_idx
    python benchmarks/compare_features.py --markdown nn.json torchrec.json megatron.json dist_s2s.json

Probes run on the CPU, on two ranks joined by gloo. Each prints yes, partly or no with its evidence, an error message or
an observed value; n/a where the question does not arise; or that it was not run because it needs CUDA. Where a system
has nothing to try, the evidence is a search of its source. The exit status is 1 if a probe does not fit the system's
version, and 2 if the system does not run.

Checks that systems share are in features/*_checks.py; what is special to a system, with the options that serve it best,
is in features/probes_*.py.

--python is the interpreter of the peer's environment. Environments that hold the versions in results/, on a machine
without a GPU:

    python -m venv peers/torchrec
    peers/torchrec/bin/pip install torch==2.14.1 numpy torchrec==1.9.2 fbgemm-gpu-cpu==1.9.0
    peers/torchrec/bin/pip uninstall --yes fbgemm-gpu fbgemm-gpu-cpu     # the first is a CUDA build that cannot load
    peers/torchrec/bin/pip install --no-deps fbgemm-gpu-cpu==1.9.0       # which does not load with torch 2.13

    python -m venv peers/megatron
    peers/megatron/bin/pip install torch==2.13.0 numpy megatron-core==0.16.1
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from common.arguments import add_outputs, make_parser
from common.figures import write_results
from common.peers import environment_for_programs
from dist_s2s.cli.command_line import run_command
from features.catalogue import FEATURES, SYSTEMS, Answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    if options.markdown is not None:
        print(markdown([json.loads(file.read_text(encoding="utf-8")) for file in options.markdown]))
        return 0
    versions: dict[str, str] = {}
    answers: dict[str, Answer] = {}
    print(f"{'feature':24}{'answer':9}evidence")
    try:
        for line in run(options.system, options.python, options.feature or list(FEATURES)):
            if "versions" in line:
                versions = line["versions"]
                continue
            answer = answers[line["feature"]] = Answer(line["verdict"], line["evidence"])
            print(f"{line['feature']:24}{answer.verdict:9}{answer.evidence}", flush=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    found = {name: vars(answer) for name, answer in answers.items()}
    write_results(options.json, {"library": options.system, "versions": versions, "answers": found})
    return 1 if any(answer.verdict == "error" for answer in answers.values()) else 0


def run(system: str, python: str, features: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects that features/runner.py prints.

    Raises:
        RuntimeError: The runner fails; with its last words.
    """
    command = [python, "-W", "ignore", "-m", "features.runner", system, *features]
    with TemporaryFile("w+", encoding="utf-8") as errors:
        environment = {**environment_for_programs(), "OMP_NUM_THREADS": "1"}
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        except OSError as error:
            raise RuntimeError(f"{system} does not run with --python {python}: {error.strerror}") from None
        with process:
            assert process.stdout is not None
            try:
                yield from map(json.loads, process.stdout)
            except ValueError as error:
                raise RuntimeError(f"{system}'s runner has written what is no JSON: {error}") from None
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{system} does not run with --python {python}:\n{''.join(errors.readlines()[-10:])}")


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of the documentation: features down, systems across."""
    titles = []
    for result in results:
        system = SYSTEMS[result["library"]]
        titles.append(f"{system.title} {result['versions'][system.distribution].partition('+')[0]}")
    table = [["feature", "what yes means", *titles], ["---"] * (2 + len(titles))]
    for feature, meaning in FEATURES.items():
        answers = [result["answers"].get(feature, {"verdict": ""}) for result in results]
        cells = [
            f"not run: {each['evidence']}" if each["verdict"] == "not run" else each["verdict"] for each in answers
        ]
        table.append([f"`{feature}`", meaning, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--system", choices=SYSTEMS)
    task.add_argument("--markdown", type=Path, nargs="+", metavar="FILE", help="print a table of these results")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the system; by default this one")
    parser.add_argument("--feature", choices=FEATURES, action="append", help="this one alone; may be repeated")
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
