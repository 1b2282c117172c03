"""What nn.Embedding, TorchRec, Megatron-Core and dist_s2s can do, each tried by a small program.

    python benchmarks/features.py --system dist_s2s
    python benchmarks/features.py --system torchrec --python peers/torchrec/bin/python --feature padding_idx
    python benchmarks/features.py --markdown nn.json torchrec.json megatron.json dist_s2s.json

Probes run on the CPU, on two ranks joined by gloo. Each prints yes, partly or no with its evidence, an error message or
an observed value; n/a where the question does not arise; or that it was not run because it needs CUDA. Where a system
has nothing to try, the evidence is a search of its source. The exit status is 1 if a probe does not fit the system's
version, and 2 if the system does not run.

Checks that systems share are in feature_checks.py, feature_update_checks.py and feature_output_checks.py; what is
special to a system, with the options that serve it best, is in feature_probes_*.py.

--python is the interpreter of the peer's environment. Environments that hold the versions in results/, on a machine
without a GPU (PIP_EXTRA_INDEX_URL may point to PyTorch's index of CPU wheels):

    python -m venv peers/torchrec
    peers/torchrec/bin/pip install torch==2.13.0 numpy torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0
    peers/torchrec/bin/pip uninstall --yes fbgemm-gpu fbgemm-gpu-cpu     # the first is a CUDA build that cannot load
    peers/torchrec/bin/pip install --no-deps fbgemm-gpu-cpu==1.8.0

    python -m venv peers/megatron
    peers/megatron/bin/pip install torch==2.13.0 numpy megatron-core==0.16.1
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from common.arguments import new_file
from common.machine import provenance
from features.catalogue import FEATURES, SYSTEMS, Answer


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
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
    if options.json is not None:
        found = {name: vars(answer) for name, answer in answers.items()}
        result = {**provenance(), "library": options.system, "versions": versions, "answers": found}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if any(answer.verdict == "error" for answer in answers.values()) else 0


def run(system: str, python: str, features: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects that feature_runner.py prints. Raises RuntimeError, with its last words, if it fails."""
    command = [python, "-W", "ignore", str(Path(__file__).with_name("feature_runner.py")), system, *features]
    with TemporaryFile("w+", encoding="utf-8") as errors:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process:
            assert process.stdout is not None
            yield from map(json.loads, process.stdout)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{system} does not run with --python {python}:\n{''.join(errors.readlines()[-10:])}")


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The README's table: features down, systems across."""
    titles = []
    for result in results:
        system = SYSTEMS[result["library"]]
        titles.append(f"{system.title} {result['versions'][system.distribution].partition('+')[0]}")
    lines = [_row(["feature", "what yes means", *titles]), _row(["---"] * (2 + len(titles)))]
    for feature, meaning in FEATURES.items():
        answers = [result["answers"].get(feature) for result in results]
        lines.append(_row([f"`{feature}`", meaning, *map(_cell, answers)]))
    return "\n".join(lines)


def _cell(answer: dict[str, str] | None) -> str:
    if answer is None:
        return ""
    return f"not run: {answer['evidence']}" if answer["verdict"] == "not run" else answer["verdict"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--system", choices=SYSTEMS)
    task.add_argument("--markdown", type=Path, nargs="+", metavar="FILE", help="prints a table of these results")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the system; by default this one")
    parser.add_argument("--feature", choices=FEATURES, action="append", help="this one alone; may be repeated")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="writes the answers there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
