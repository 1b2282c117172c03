"""Bytes: what a rank holds, and what it sends in a step."""

from dataclasses import dataclass

from dist_s2s.cost.problem import OptimizerName, Problem

_ID_BYTES = 8
_PAGE_BYTES = 1 << 20  # mailboxes grow by multiples of it, as in sharded/mailboxes.py
_HALVES = 2  # of a mailbox

# State tensors of each optimizer in sharded/optim.py: of shape [rows, D], and of shape [rows].
STATE_TENSORS: dict[OptimizerName, tuple[int, int]] = {
    "SparseSGD": (0, 0),
    "SparseAdagrad": (1, 0),
    "RowWiseAdagrad": (0, 1),
    "SparseAdam": (2, 0),
    "RowWiseAdam": (1, 1),
}


@dataclass(frozen=True)
class Memory:
    """Bytes of the rank that needs most.

    rows: its shard, also if it lies in memory that all ranks map. optimizer_state: of these rows. mailboxes: its own in
    shared memory. step: the largest sum of
    tensors that live at once during a step, the rows and gradients that the model sees included. process: Python, torch
    and the process group, as calibrated; pages of libraries that ranks of a host share count for each.
    """

    rows: float
    optimizer_state: float
    mailboxes: float
    step: float
    process: float

    @property
    def total(self) -> float:
        """Of all."""
        return self.rows + self.optimizer_state + self.mailboxes + self.step + self.process


@dataclass(frozen=True)
class BytesSent:
    """Bytes that the rank which sends most hands to others in a step, by what they are. Its own share is ``to_itself``.

    requests: counts and ids. rows: for the others, which in shared memory read them for themselves. gradients: of
    others' rows.
    """

    requests: float
    rows: float
    gradients: float
    to_itself: float

    @property
    def to_others(self) -> float:
        """Of all kinds."""
        return self.requests + self.rows + self.gradients


def memory(problem: Problem, process_bytes: float) -> Memory:
    """Of the rank that needs most: the one with the largest shard, and the owner of the most requests."""
    rows, dim = problem.partition.shard_size(0), problem.embedding_dim
    whole, per_row = STATE_TENSORS[problem.optimizer]
    state_size = problem.sum_dtype.itemsize
    return Memory(
        rows=rows * dim * problem.dtype.itemsize,
        optimizer_state=rows * (whole * dim + per_row) * state_size,
        mailboxes=_HALVES * mailbox_capacity(problem) if problem.moves == "shared_memory" else 0,
        step=_step_bytes(problem),
        process=process_bytes,
    )


def mailbox_capacity(problem: Problem) -> int:
    """To what half a mailbox has grown after a step: it holds a rank's requests and, behind them, their gradients."""
    if problem.cluster.ranks == 1:
        return 0
    gradient = problem.embedding_dim * problem.gradient_wire_dtype.itemsize
    message = (1 + problem.cluster.ranks) * _ID_BYTES + problem.traffic.distinct * (_ID_BYTES + gradient)
    return -(-int(message) // _PAGE_BYTES) * _PAGE_BYTES


def _step_bytes(problem: Problem) -> float:
    """The largest of what lives in backward and what lives in the update."""
    ids, dim, traffic = problem.ids, problem.embedding_dim, problem.traffic
    distinct, requests, touched = traffic.distinct, float(traffic.requests.max()), float(traffic.touched.max())
    size = problem.sum_dtype.itemsize
    # The ids given and copied; of them sorted order, places and inverse; the requests with their rows and counts.
    plan = _ID_BYTES * (5 * ids + 3 * distinct + 2 * requests)
    seen = 2 * ids * dim * problem.dtype.itemsize  # by the model: rows and their gradients
    arrived = requests * dim * problem.gradient_wire_dtype.itemsize
    converted = requests * dim * size if problem.gradient_wire_dtype != problem.sum_dtype else 0
    backward = distinct * dim * size + arrived + converted + touched * dim * size
    if not problem.in_place:
        backward += distinct * dim * (problem.gradient_wire_dtype.itemsize if converted else 0)
    whole, _ = STATE_TENSORS[problem.optimizer]
    update = (2 + whole) * touched * dim * size
    return plan + seen + max(backward, update)


def bytes_sent(problem: Problem) -> BytesSent:
    """Of the rank that sends most."""
    ranks, asked, dim = problem.cluster.ranks, problem.traffic.asked, problem.embedding_dim
    if ranks == 1:
        return BytesSent(0.0, 0.0, 0.0, 0.0)
    # What travels ahead of the ids: in shared memory for all ranks to read, else to each of them.
    header = _ID_BYTES * ((1 + ranks) if problem.in_place else 4 * (ranks - 1))
    row = 0 if problem.in_place else dim * problem.row_wire_dtype.itemsize
    gradient = dim * problem.gradient_wire_dtype.itemsize
    to_others = asked.sum() - asked
    per_rank = to_others * (_ID_BYTES + gradient) + asked * (ranks - 1) * row
    most = int(per_rank.argmax())
    return BytesSent(
        requests=header + to_others[most] * _ID_BYTES,
        rows=asked[most] * (ranks - 1) * row,
        gradients=to_others[most] * gradient,
        to_itself=asked[most] * (_ID_BYTES + row + gradient) + (0 if problem.in_place else 4 * _ID_BYTES),
    )
