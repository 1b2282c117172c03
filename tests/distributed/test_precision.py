"""Reduced precision is tried out: taken where it exists and pays, refused by name where it does not exist."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError
from dist_s2s.distributed import Ranks, precision
from dist_s2s.distributed.precision import bf16_problem, settle_precision
from tests.rank_pool import RankPool

CPU = torch.device("cpu")
ALONE = Ranks.alone()
LOWER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def settle(wanted: str, problem: str | None, faster: bool) -> str:
    seconds = {True: 1.0 if faster else 3.0, False: 2.0}
    with (
        patch.object(precision, "bf16_problem", return_value=problem),
        patch.object(precision, "_seconds", lambda bf16, *_: seconds[bf16]),
    ):
        return settle_precision(wanted, ALONE, 8, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "problem", "faster", "expected"),
    [
        ("auto", None, True, "bf16"),
        ("auto", None, False, "fp32"),
        ("auto", "no", True, "fp32"),
        ("bf16", None, False, "bf16"),
        ("fp32", "no", False, "fp32"),
        ("fp64", None, True, "fp64"),
    ],
)
def test_auto_takes_bf16_where_it_exists_and_is_faster(
    wanted: str, problem: str | None, faster: bool, expected: str
) -> None:
    assert settle(wanted, problem, faster) == expected


def test_bf16_by_name_is_refused_where_it_does_not_exist() -> None:
    with pytest.raises(UserError) as error:
        settle("bf16", "this CPU (AVX2) cannot", faster=True)
    assert str(error.value) == (
        "training.precision is bf16, but this CPU (AVX2) cannot; write training.precision: auto, which takes bf16 "
        "where it exists and is faster, or fp32"
    )


def settle_differently(group: dist.ProcessGroup, wanted: str) -> str:
    """What ranks settle on, of which the last has no bfloat16."""
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), CPU, group)
    problem = "it has none" if ranks.rank == ranks.world_size - 1 else None
    with (
        patch.object(precision, "bf16_problem", return_value=problem),
        patch.object(precision, "_seconds", lambda bf16, *_: 1.0 if bf16 else 2.0),
    ):
        try:
            return settle_precision(wanted, ranks, 8, 8)  # type: ignore[arg-type]
        except UserError as error:
            return str(error)


def test_all_ranks_settle_on_the_same(ranks: RankPool) -> None:
    assert ranks.run(settle_differently, "auto", world_size=3) == ["fp32"] * 3
    refused = ranks.run(settle_differently, "bf16", world_size=3)
    assert refused == [refused[0]] * 3
    assert "it has none" in refused[0]
    assert refused[0].endswith("(on rank 2)")


def test_the_probe_is_right_about_this_machine() -> None:
    lstm = torch.nn.LSTM(16, 16)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            lstm(torch.randn(3, 2, 16))[0].sum().backward()
        works = True
    except RuntimeError:
        works = False
    assert (bf16_problem(CPU) is None) == works


@pytest.mark.skipif(sys.platform != "linux", reason="the variables are those of oneDNN on x86")
def test_the_probe_finds_a_processor_without_bfloat16() -> None:
    code = (
        "import torch; from dist_s2s.distributed.precision import bf16_problem; "
        "print(bf16_problem(torch.device('cpu')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **LOWER},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert found.stdout.startswith("this CPU (AVX2) cannot train an LSTM in bfloat16: ")
    assert found.stdout.count("\n") == 1
