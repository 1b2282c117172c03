"""Count bytes: what a rank holds, and what it sends in a step."""

import math

from dist_s2s.cost.id_traffic import Floats
from dist_s2s.cost.problem import OPTIMIZERS, Problem

_ID_BYTES = 8
_POSITION_BYTES = 4  # as positions travel, of up to 2³¹ rows
_KNOWN_BYTES = 4  # the number of the last update that a row's average knows of
_MAILBOX_PAGE = 1 << 20  # the halves of a mailbox grow by multiples of it


def memory(problem: Problem, process_bytes: float) -> dict[str, float]:
    """Return the bytes of the rank that needs the most, itemized.

    ``rows``, ``optimizer_state`` and ``average`` are exact (the state once every row has been updated),
    ``mailboxes`` nearly so; ``step``, the tensors that live at once during a step, including the model's rows and
    gradients, is rough.
    """
    rows, dim, distinct = problem.partition.shard_size(0), problem.embedding_dim, float(problem.asked.sum())
    whole, per_row = OPTIMIZERS[problem.optimizer]
    gradient = dim * problem.sum_dtype.itemsize
    requests, touched = float(problem.requests.max()), float(problem.touched.max())
    pages = math.ceil(distinct * (_POSITION_BYTES + problem.sent_gradient_bytes) / _MAILBOX_PAGE)
    plan = _ID_BYTES * (5 * problem.ids + 3 * distinct + 2 * requests)
    seen = 2 * problem.ids * dim * problem.dtype.itemsize
    backward = requests * problem.sent_gradient_bytes + (distinct + touched) * gradient
    return {
        "rows": rows * dim * problem.dtype.itemsize,
        "optimizer_state": rows * (whole * dim + per_row) * problem.sum_dtype.itemsize,
        "average": rows * (dim * problem.dtype.itemsize + _KNOWN_BYTES) * problem.averaged,
        "mailboxes": 2 * pages * _MAILBOX_PAGE * problem.in_place,
        "step": plan + seen + max(backward, (2 + whole + problem.averaged) * touched * gradient),
        "process": process_bytes,
    }


def bytes_sent(problem: Problem) -> dict[str, float]:
    """Return the bytes that the busiest sender sends to other ranks in a step, itemized, without headers."""
    to_owner, from_owner = messages(problem)
    busiest = int(sent_and_received(to_owner, from_owner, problem.cluster.ranks)[0].argmax())
    to_others = float(problem.asked.sum() - problem.asked[busiest])
    return {
        "ids": to_others * _POSITION_BYTES,
        "rows": float(from_owner[busiest]) * (problem.cluster.ranks - 1),
        "gradients": to_others * problem.sent_gradient_bytes,
    }


def messages(problem: Problem) -> tuple[Floats, Floats]:
    """Return the bytes from one rank to each owner (ids and gradients), and from each owner to one rank, [W] each."""
    row = 0 if problem.in_place else problem.embedding_dim * (problem.comm_dtype or problem.dtype).itemsize
    return problem.asked * (_POSITION_BYTES + problem.sent_gradient_bytes), problem.asked * row


def sent_and_received(to_owner: Floats, from_owner: Floats, groups: int) -> tuple[Floats, Floats]:
    """Return what each of ``groups`` equal groups of ranks (hosts, or single ranks) sends and receives, [groups].

    ``to_owner`` and ``from_owner`` are what ``messages`` returns.
    """
    here = len(to_owner) // groups
    elsewhere = len(to_owner) - here
    to_group, from_group = (each.reshape(groups, here).sum(axis=1) for each in (to_owner, from_owner))
    sent = (to_group.sum() - to_group) * here + from_group * elsewhere
    return sent, to_group * elsewhere + (from_group.sum() - from_group) * here
