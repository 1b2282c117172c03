"""The lookup benchmark on one rank: nn.Embedding takes part, and CUDA where there is one."""

import pytest
import torch

from lookup.lineup import SYSTEMS, default_names
from lookup.measure import find_disagreement
from lookup.options import parse
from lookup.problem import Problem
from lookup.race import race
from tests.rank_pool import RankPool

NAMES = ["collective", "embedding_sparse", "embedding_dense"]


def test_a_lone_rank_races_nn_embedding(ranks: RankPool) -> None:
    (found,) = ranks.run(race, NAMES, Problem(131, 8, 40), 2, world_size=1)
    assert list(found["timings"]) == NAMES
    assert set(found["differences"]["SGD"]) == set(NAMES)
    assert set(found["differences"]["RowWiseAdagrad"]) == {"collective", "embedding_sparse"}
    assert find_disagreement(found["differences"]) == ""


def test_nn_embedding_takes_part_by_default_on_cuda_alone() -> None:
    assert not {"embedding_sparse", "embedding_dense"} & set(default_names(sweep=False))
    on_cuda = default_names(sweep=False, device="cuda")
    assert {"collective", "floor", "embedding_sparse", "embedding_dense"} <= set(on_cuda)
    assert all("cuda" in SYSTEMS[name].devices for name in on_cuda)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--device=cuda"], "--ranks is 2"),
        (["--device=cuda", "--ranks=1", "--contenders", "megatron"], "megatron does not run on cuda"),
        (["--contenders", "embedding_dense"], "embedding_dense is for one rank"),
        (["--ranks=1", "--sweep=ranks", "--contenders", "embedding_dense"], "embedding_dense is for one rank"),
    ],
)
def test_what_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SystemExit, match="2"):
        parse(arguments, None)
    assert reason in capsys.readouterr().err
