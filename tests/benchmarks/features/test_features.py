"""The comparison of features: what it says of this library and of nn.Embedding, and how it reports what goes wrong."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from torch.nn import functional

import compare_features
from features.catalogue import FEATURES, SYSTEMS
from tests.commands import Finished, run

BENCHMARKS = Path(compare_features.__file__).parent
NOT_OURS = {
    "other_shardings": "no",
    "automatic_placement": "no",
    "unbounded_ids": "no",
    "fused_optimizer": "partly",
    "host_memory_cache": "no",
    "quantised_inference": "no",
    "tensor_parallel_layers": "no",
}
# Imports are what the runner takes longest for: these programs are forked from a process that has done them. Only then
# may they have children, which are ranks.
RUNNER = """
import multiprocessing, os, signal, sys, time
import torch
from features import runner as feature_runner
multiprocessing.current_process()._config["daemon"] = False
"""
BAD_PROBES = """
from features.probes import search
from features.catalogue import Answer

def dies(group):
    if group.rank() == 1:
        os.kill(os.getpid(), signal.SIGABRT)
    return Answer("yes", "")

def hangs(group):
    time.sleep(60)

def errs(group):
    return missing_name

def needs_cuda(group):
    raise AssertionError("Torch not compiled with CUDA enabled")

def differs(group):
    return Answer(["yes", "partly"][group.rank()], f"rank {group.rank()}")

def finds(group):
    return search(torch.optim, "class SparseAdam")

feature_runner.SECONDS_FOR_A_COLLECTIVE, feature_runner.SECONDS_FOR_A_PROBE = 1, 3
for probe in (dies, hangs, errs, needs_cuda, differs, finds):
    answer = feature_runner.run_probe(probe, 2)
    print(probe.__name__, answer.verdict, answer.evidence, sep="|")
"""


def answers_of(system: str, file: Path, *names: str) -> dict[str, Any]:
    arguments = [f"--system={system}", f"--json={file}", *(f"--feature={name}" for name in names)]
    assert compare_features.main(arguments) == 0
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert result["library"] == system
    assert SYSTEMS[system].distribution in result["versions"]
    return result["answers"]  # type: ignore[no-any-return]


def run_forked(folder: Path, program: str, *arguments: str, status: int = 0) -> Finished:
    file = folder / "program.py"
    file.write_text(RUNNER + program, encoding="utf-8")
    return run(str(file), *arguments, status=status)


def test_every_claim_about_this_library_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = answers_of("dist_s2s", tmp_path / "answers.json")
    expected = {name: NOT_OURS.get(name, "yes") for name in FEATURES}
    assert {name: answer["verdict"] for name, answer in answers.items()} == expected
    assert "id 132 at position (0,) on rank 1 is outside [0, 132)" in answers["bad_id_raises"]["evidence"]
    output = capsys.readouterr().out
    assert all(answer["evidence"] in output for answer in answers.values())


def test_claims_about_embedding(tmp_path: Path) -> None:
    expected = {"row_wise_adagrad": "no", "bad_id_raises": "partly", "several_tables": "n/a", "padding_idx": "yes"}
    expected["logits_in_chunks"] = "partly" if hasattr(functional, "linear_cross_entropy") else "no"
    output = run_forked(tmp_path, "feature_runner.main(*sys.argv[1:])", "nn.Embedding", *expected).output
    versions, *lines = map(json.loads, output.splitlines())
    assert SYSTEMS["nn.Embedding"].distribution in versions["versions"]
    answers = {line["feature"]: line for line in lines}
    assert {name: answer["verdict"] for name, answer in answers.items()} == expected
    assert answers["row_wise_adagrad"]["evidence"] == "ValueError: torch.optim has no RowWiseAdagrad"


def test_what_goes_wrong_in_a_probe_is_told(tmp_path: Path) -> None:
    finished = run_forked(tmp_path, BAD_PROBES)
    lines = [line.split("|", 2) for line in finished.output.splitlines()]
    answers = {name: (verdict, evidence) for name, verdict, evidence in lines}
    assert answers["dies"] == ("no", "rank 1 dies: SIGABRT"), finished.errors[0]
    assert answers["hangs"] == ("no", "rank 0 does not end within 3 s")
    assert answers["errs"] == ("error", "NameError: name 'missing_name' is not defined")
    assert answers["needs_cuda"] == ("not run", "needs CUDA")
    assert answers["differs"] == ("partly", "rank 1")
    assert answers["finds"][0] == "error"


@pytest.mark.skipif(find_spec("megatron") is not None, reason="is about an environment without it")
def test_a_missing_system_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the runner says of it, the command repeats."""
    arguments = ("megatron", "padding_idx")
    said = run_forked(tmp_path, "feature_runner.main(*sys.argv[1:])", *arguments, status=1).errors[0]
    assert "No module named 'megatron'" in said
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "{said.splitlines()[-1]}" >&2\nexit 1\n', encoding="utf-8")
    python.chmod(0o755)
    assert compare_features.main(["--system=megatron", "--feature=padding_idx", f"--python={python}"]) == 2
    assert "No module named 'megatron'" in capsys.readouterr().err


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_feature_has_a_probe(system: str) -> None:
    modules = [SYSTEMS[system].probes, "features.table_checks"]
    if system != "torchrec":  # has no output layer
        modules.append("features.output_checks")
    text = "".join((BENCHMARKS / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8") for name in modules)
    forms = ('"{}"', "def {}(", "{} = ")
    assert [name for name in FEATURES if not any(form.format(name) in text for form in forms)] == []


def test_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {
        "torchrec": {"padding_idx": ("no", "TypeError: …"), "prefetch": ("not run", "needs CUDA")},
        "dist_s2s": {"padding_idx": ("yes", "row 3 moves by 0.000"), "prefetch": ("yes", "1 collective")},
    }
    files = []
    for system, answers in results.items():
        found = {name: {"verdict": verdict, "evidence": evidence} for name, (verdict, evidence) in answers.items()}
        versions = {SYSTEMS[system].distribution: "1.8.0+cpu"}
        files.append(tmp_path / f"{system}.json")
        files[-1].write_text(json.dumps({"library": system, "versions": versions, "answers": found}), encoding="utf-8")
    assert compare_features.main(["--markdown", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| feature | what yes means | TorchRec 1.8.0 | dist_s2s 1.8.0 |"
    assert f"| `padding_idx` | {FEATURES['padding_idx']} | no | yes |" in lines
    assert f"| `prefetch` | {FEATURES['prefetch']} | not run: needs CUDA | yes |" in lines
    assert f"| `grow` | {FEATURES['grow']} |  |  |" in lines
    assert len(lines) == 2 + len(FEATURES)
