"""The parts of device_check.py: what each of them runs, for how long at most, and where its figures are."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SLOWER = 3  # times as long as on a GPU a part may take on a CPU, although its sizes are smaller
# What torchrun sets for the only rank. With it accelerate makes a process group, of nccl on CUDA.
_ONE_RANK = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",  # any that is free
}


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        arguments: Those of the Python interpreter.
        limit: Seconds after which it is killed.
        read: Returns the figures that it has written, also when it has failed; raises ValueError if they are wrong.
        environment: More variables.
        skip: Says by what is known of the machine why it cannot run, or returns an empty text.
    """

    name: str
    arguments: tuple[str, ...]
    limit: float
    read: Callable[[], Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    skip: Callable[[dict[str, Any]], str] = lambda machine: ""


def parts(device: str, work: Path) -> list[Part]:
    """Return all parts in their order; ``work`` is an empty folder for what they write."""
    slower = 1 if device == "cuda" else SLOWER
    file = work / "machine.json"
    machine = Part("machine", ("launch/device_machine.py", str(file), device), 70 * slower, _json(file))
    return [
        machine,
        _tests(device, work, 150 * slower),
        *_training(device, work, slower),
        *_benchmarks(device, work, slower),
    ]


def _tests(device: str, work: Path, limit: float) -> Part:
    """Check the library: at one rank, alone and through a process group; in other programs, on two ranks too."""
    file = work / "tests.xml"
    # A warning of a torch that is older or newer than ours is none of this check's business.
    arguments = ("-m", "pytest", "tests/sharded/device", f"--device={device}", "-q", "-W", "default")
    return Part("tests", (*arguments, "-p", "no:cacheprovider", f"--junitxml={file}"), limit, lambda: read_tests(file))


def _training(device: str, work: Path, slower: int) -> list[Part]:
    """Run the command on the phrasebook, in float32 and, on a GPU, in bfloat16; then translate what it has learnt."""
    small = {"model.hidden_size": "64", "model.embedding_dim": "64", "data.batch_tokens": "1000"}
    limits = {"training.max_steps": "60", "training.warmup_steps": "10"}
    if device == "cuda":
        small, limits = {}, {"training.max_steps": "400", "training.warmup_steps": "50"}

    def training(name: str, **settings: str) -> Part:
        run = work / name
        arguments = ("-m", "dist_s2s.train", "--config", "configs/phrasebook.yaml", "--run_dir", str(run))
        overrides = {**small, **limits, "training.log_every": "10", **settings}
        chosen = tuple(text for key, value in overrides.items() for text in (f"--{key}", value))
        return Part(name, arguments + chosen, 55 * slower, lambda: read_training(run), _ONE_RANK)

    source, output = work / "source.txt", work / "translation.txt"
    source.write_text("我 爱 自然 语言 处理\n她 喝 茶\n", encoding="utf-8")
    command = ("-m", "dist_s2s.translate", "--run", str(work / "training"), "--beam_size", "4")
    files = ("--input", str(source), "--output", str(output))
    # Not every CPU has bfloat16 LSTMs.
    reduced = {"training.precision": "bf16" if device == "cuda" else "fp32", "model.output": "sharded"}
    return [
        training("training", **{"training.precision": "fp32"}),
        training("training_sharded_output", **reduced),
        Part("translation", (*command, *files), 30 * slower, lambda: output.read_text(encoding="utf-8").splitlines()),
    ]


def _benchmarks(device: str, work: Path, slower: int) -> list[Part]:
    """Lookups beside nn.Embedding and TorchRec, and output layers beside torch's cross-entropy at V = 128,000."""
    on = ("--ranks", "1", "--device", device)
    size = ("--num_embeddings", "1000000", "--embedding_dim", "128", "--ids", "16384")
    layer = ("--tokens", "8192", "--hidden_size", "512", "--repetitions", "5", "--limit", "0.3")
    if device == "cpu":
        size = ("--num_embeddings", "100000", "--embedding_dim", "32", "--ids", "1024")
        layer = ("--tokens", "256", "--hidden_size", "32", "--repetitions", "1", "--limit", "1")

    def benchmark(name: str, script: str, *arguments: str, limit: float, skip: Any = lambda machine: "") -> Part:
        file = work / f"{name}.json"
        command = (f"benchmarks/{script}.py", *on, *arguments, "--json", str(file))
        return Part(name, command, limit * slower, _json(file), skip=skip)

    lookup = (*size, "--repetitions", "5", "--no_memory", "--contenders", "collective")
    classes = ("--num_classes", "128000", "--label_smoothing", "0", "--all_layers")
    return [
        benchmark("lookup", "lookup_bench", *lookup, "embedding_sparse", "embedding_dense", limit=70),
        benchmark("lookup_torchrec", "lookup_bench", *lookup, "torchrec", limit=40, skip=_no_torchrec),
        benchmark("output_layers", "softmax_bench", *classes, *layer, limit=120),
    ]


def _no_torchrec(machine: dict[str, Any]) -> str:
    error = machine["torchrec"].get("error")
    return "" if error is None else f"TorchRec cannot be imported: {error}"


def _json(file: Path) -> Callable[[], Any]:
    return lambda: json.loads(file.read_text(encoding="utf-8"))


def read_tests(file: Path) -> dict[str, Any]:
    """Return from pytest's JUnit file how many tests there were, and the names of those that failed."""
    suites = ElementTree.parse(file).getroot()
    [suite] = suites.iter("testsuite")
    cases = list(suite.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return {
        **{name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")},
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
    }


def read_training(run: Path) -> dict[str, Any]:
    """Return the summary of a run and its first and last losses; raise ValueError if it has not learnt anything."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
    if not losses[-1] < losses[0]:
        raise ValueError(f"the loss has not fallen: {losses[0]} at first, {losses[-1]} at last")
    return {**summary, "first_loss": losses[0], "last_loss": losses[-1]}
