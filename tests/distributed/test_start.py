"""What joining the ranks changes in a process, and that leaving them changes it back."""

import pytest
import torch

from dist_s2s import UserError
from dist_s2s.distributed import joined_ranks


def flushes() -> bool:
    return not bool(torch.tensor(1e-40) * 0.5 > 0)


@pytest.mark.parametrize("before", [False, True])
def test_leaving_gives_the_process_back_its_arithmetic(before: bool) -> None:
    threads = torch.get_num_threads()
    torch.set_flush_denormal(before)
    try:
        with joined_ranks(threads + 1):
            assert (flushes(), torch.get_num_threads()) == (True, threads + 1)
        assert (flushes(), torch.get_num_threads()) == (before, threads)
        with pytest.raises(UserError), joined_ranks(threads + 1):
            raise UserError("as all ranks raise it")
        assert (flushes(), torch.get_num_threads()) == (before, threads)
    finally:
        torch.set_flush_denormal(False)


def test_more_ranks_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with (
        pytest.raises(UserError, match="4 ranks are on this machine, but only 1 of its GPUs can be seen"),
        joined_ranks(),
    ):
        pytest.fail("the ranks would have joined")
