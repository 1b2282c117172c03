"""Whether this machine has reduced precision, and whether it pays: tried out with the very primitives, not assumed.

Processors differ. One without native bfloat16 has no LSTM in it (oneDNN raises), and where it exists it may be slower.
"""

import time
from statistics import median
from typing import Literal

import torch
from torch import nn

from dist_s2s import UserError
from dist_s2s.distributed.ranks import Ranks

PrecisionName = Literal["auto", "fp32", "bf16", "fp64"]
_SENTENCES, _TOKENS = 32, 12  # of a batch that is large enough to tell, and takes milliseconds
_REPETITIONS = 3


def settle_precision(wanted: PrecisionName, ranks: Ranks, input_size: int, hidden_size: int) -> PrecisionName:
    """Return the precision of a training: what was asked for, or what ``auto`` means on these machines (collective).

    ``auto`` means bf16 if every rank has it and is faster with it, else fp32.

    Args:
        input_size, hidden_size: of the model's LSTM layers, with which it is tried out.

    Raises:
        UserError: on every rank, if bf16 was asked for by name and a rank does not have it.
    """
    if wanted not in ("auto", "bf16"):
        return wanted
    problem = bf16_problem(ranks.device)
    if wanted == "bf16":
        ranks.together(lambda: _refuse(problem))
        return wanted
    pays = problem is None and _seconds(True, ranks, input_size, hidden_size) < _seconds(
        False, ranks, input_size, hidden_size
    )
    return "bf16" if ranks.all_agree(pays) else "fp32"


def bf16_problem(device: torch.device) -> str | None:
    """Return why an LSTM cannot be trained in bfloat16 on ``device``, in one line; None if it can (local)."""
    try:
        _step(nn.LSTM(8, 8, batch_first=True).to(device), torch.zeros(2, 3, 8, device=device), bf16=True)
    except RuntimeError as error:
        where = f"this CPU ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else f"{device}"
        reason = str(error).splitlines()[0].partition(". ")[0]
        return f"{where} cannot train an LSTM in bfloat16: {reason}"
    return None


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise UserError(
            f"training.precision is bf16, but {problem}; write training.precision: auto, which takes bf16 where it "
            "exists and is faster, or fp32"
        )


def _seconds(bf16: bool, ranks: Ranks, input_size: int, hidden_size: int) -> float:
    """Return how long a forward and backward pass of one LSTM layer takes here, while all ranks try theirs."""
    lstm = nn.LSTM(input_size, hidden_size, batch_first=True).to(ranks.device)
    batch = torch.randn(_SENTENCES, _TOKENS, input_size, device=ranks.device)
    _step(lstm, batch, bf16)
    seconds = []
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        _step(lstm, batch, bf16)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def _step(lstm: nn.LSTM, batch: torch.Tensor, bf16: bool) -> None:
    with torch.random.fork_rng(devices=[]), torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
        output, _ = lstm(batch)
    output.float().sum().backward()
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
