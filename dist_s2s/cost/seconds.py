"""Predict the order of a step's time: a sum of amounts × coefficients.

The amounts follow from the problem, the coefficients from a machine's calibration. They are seconds for each

    step                       for its calls, whatever the sizes
    id                         that is sorted, by the rank that has it and by its owner
    row_byte                   of rows and gradients that are gathered, summed or copied in memory
    NAME updated_byte          of rows that the optimizer updates
    TRANSPORT exchange         of all ranks, and for each other rank in it: TRANSPORT peer. A rank sends W - 1 messages
    collective sent_byte       that a rank sends or receives

The amounts are the busiest rank's. Where a host has more ranks than cores, ranks take turns, and everything takes that
much longer. Caches, the processor's frequency and other programs are not modelled: expect a factor of 1.5 to 2.
"""

from collections.abc import Mapping

import numpy as np

from dist_s2s.cost.id_traffic import Floats
from dist_s2s.cost.problem import OPTIMIZERS, TRANSPORTS, Problem
from dist_s2s.cost.volume import messages, sent_and_received

_COPIES_FOR_AVERAGE = 6  # of an updated row: it is gathered before and after the update, and its average moves twice
# Of a step: two meetings around the lookup and one in backward; or ids, rows, first messages and gradients.
EXCHANGES = {"shared_memory": 3, "collective": 4}
COEFFICIENTS = (
    *("step", "id", "row_byte"),
    *(f"{name} updated_byte" for name in OPTIMIZERS),
    *(f"{transport} {unit}" for transport in TRANSPORTS for unit in ("exchange", "peer")),
    "collective sent_byte",
)


def amounts(problem: Problem) -> dict[str, float]:
    """Return how often each coefficient counts in a step; those left out do not count."""
    cluster, dim = problem.cluster, problem.embedding_dim
    row, gradient = dim * problem.dtype.itemsize, dim * problem.sum_dtype.itemsize
    gathered = 0 if problem.in_place else row  # by the owner, to be sent

    def busiest(work: Floats) -> float:
        """Return the work of the busiest rank, or of an average one for each rank that shares its core."""
        return max(float(work.max()), float(work.mean()) * cluster.crowding)

    own_bytes = problem.ids * (row + gradient) + float(problem.asked.sum()) * gradient
    averaged = problem.touched * gradient * _COPIES_FOR_AVERAGE * problem.averaged
    found = {
        "step": cluster.crowding,
        "id": busiest(problem.ids + problem.requests),
        "row_byte": busiest(own_bytes + problem.requests * (gathered + gradient) + averaged),
        f"{problem.optimizer} updated_byte": busiest(problem.touched) * gradient,
    }
    if cluster.ranks > 1:
        exchanges = EXCHANGES[problem.transport] * cluster.crowding
        found[f"{problem.transport} exchange"] = exchanges
        found[f"{problem.transport} peer"] = exchanges * (cluster.ranks - 1)
    if cluster.ranks > 1 and not problem.in_place:
        sent, received = sent_and_received(*messages(problem), cluster.ranks)
        found["collective sent_byte"] = busiest(sent + received)
    return found


def step_seconds(problem: Problem, coefficients: Mapping[str, float]) -> dict[str, float]:
    """Return the predicted seconds of a step, itemized.

    ``latency`` is the part of messages that does not depend on their size, ``transfer`` the part that does; with shared
    memory, bytes are copied as part of ``rows``.
    """
    seconds = {name: amount * coefficients[name] for name, amount in amounts(problem).items()}
    latency = sum(value for name, value in seconds.items() if name.endswith((" exchange", " peer")))
    transfer, cluster = seconds.get("collective sent_byte", 0.0), problem.cluster
    if cluster.hosts > 1:
        latency += EXCHANGES[problem.transport] * cluster.latency
        between_hosts = np.maximum(*sent_and_received(*messages(problem), cluster.hosts))
        transfer = max(transfer, float(between_hosts.max()) / cluster.bandwidth)
    return {
        "calls": seconds["step"],
        "ids": seconds["id"],
        "rows": seconds["row_byte"],
        "update": seconds[f"{problem.optimizer} updated_byte"],
        "latency": latency,
        "transfer": transfer,
    }
