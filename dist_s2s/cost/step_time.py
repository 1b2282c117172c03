"""Seconds of a step, part by part.

A step has the parts plan (none, where rows are read in place), rows, gradients and update. All but the last contain
exchanges, at which every rank waits for the others. So a part lasts

    work        see work.py; of the rank that is done last, with cores shared evenly where a host has more ranks than
                cores: once for what ranks do for their own ids, and once for what they do as owners of rows
    latency     of its exchanges (in plan two all_to_alls; with shared memory two meetings in rows, and one in
                gradients): a fixed time, and one for each other rank. Each of them gets a message of its own, W - 1 in
                all and posted at once, and there is no tree. Where ranks share cores they also wait for each other to
                be scheduled, and between hosts the network's latency comes on top, once for each exchange
    transfer    of its bytes: the work of the busiest rank to send and receive them, or, if that is longer, what the
                busiest host's network takes. 0 in shared memory, where rows are copied by the work itself
"""

from dataclasses import dataclass, replace

import numpy as np

from dist_s2s.cost.coefficients import Coefficients, PartCost, TransportCost
from dist_s2s.cost.id_traffic import Floats
from dist_s2s.cost.problem import Cluster, Problem
from dist_s2s.cost.work import Work, part_works

_ID_BYTES = 8
_HEADER_NUMBERS = 4  # to each rank ahead of an all_to_all of requests


@dataclass(frozen=True)
class PartTime:
    """Seconds of one part. work: of the average rank. waiting: for a busier one, or for a core. See above."""

    work: float = 0.0
    waiting: float = 0.0
    latency: float = 0.0
    transfer: float = 0.0

    @property
    def total(self) -> float:
        """Of all."""
        return self.work + self.waiting + self.latency + self.transfer


@dataclass(frozen=True)
class StepTime:
    """Seconds of each part of a step."""

    plan: PartTime
    rows: PartTime
    gradients: PartTime
    update: PartTime

    @property
    def total(self) -> float:
        """Of the step."""
        return self.plan.total + self.rows.total + self.gradients.total + self.update.total


def step_time(problem: Problem, known: Coefficients) -> StepTime:
    """The time of a step of ``problem`` on machines with these coefficients."""
    of_transport = known.transports["shared_memory" if problem.in_place else "collective"]
    costs = {
        "plan": of_transport.plan,
        "rows": of_transport.rows,
        "gradients": of_transport.gradients,
        "update": known.update[problem.optimizer],
    }
    parts = {"plan": PartTime()} | {
        name: _work_time(work, costs[name], problem.cluster, known)
        for name, work in part_works(problem, known.cache_bytes).items()
    }
    if problem.cluster.ranks > 1:
        for name, messages in part_messages(problem).items():
            parts[name] = replace(parts[name], **_exchange_time(messages, problem, of_transport))
    return StepTime(**parts)


def part_messages(problem: Problem) -> dict[str, list[tuple[Floats, Floats]]]:
    """For each part the bytes of its exchanges: what one rank sends to each owner [W], and each owner to one rank."""
    asked, dim = problem.traffic.asked, problem.embedding_dim
    nothing = np.zeros_like(asked)
    requests, gradients = asked * _ID_BYTES, asked * dim * problem.gradient_wire_dtype.itemsize
    if problem.in_place:
        return {"rows": [(nothing, nothing)] * 2, "gradients": [(requests + gradients, nothing)]}
    header = np.full_like(asked, _HEADER_NUMBERS * _ID_BYTES)
    return {
        "plan": [(header, nothing), (requests, nothing)],
        "rows": [(nothing, asked * dim * problem.row_wire_dtype.itemsize)],
        "gradients": [(gradients, nothing)],
    }


def busiest(work: Floats, cluster: Cluster) -> float:
    """When the last rank of all hosts is done with its work, seconds for each, [W] or [1] if it is the same for all.

    As long as more ranks of a host are at work than it has cores, these are shared evenly.
    """
    hosts = np.sort(np.broadcast_to(work, cluster.ranks).reshape(cluster.hosts, cluster.ranks_per_host), axis=1)
    stretches = np.diff(hosts, axis=1, prepend=0.0)  # of work, at the end of each of which one more rank is done
    at_work = np.arange(cluster.ranks_per_host, 0, -1)
    return float((stretches @ np.maximum(at_work / cluster.cores, 1.0)).max())


def _work_time(work: Work, cost: PartCost, cluster: Cluster, known: Coefficients) -> PartTime:
    crowded = (known.crowded, known.crowded_element) if cluster.crowding > 1 else (1.0, 1.0)
    mean = float(sum(each.mean() for each in work.seconds(cost)))
    longest = sum(busiest(each, cluster) for each in work.seconds(cost, *crowded))
    return PartTime(mean, max(0.0, longest - mean))


def _exchange_time(messages: list[tuple[Floats, Floats]], problem: Problem, cost: TransportCost) -> dict[str, float]:
    """The latency and transfer of one part's exchanges."""
    cluster = problem.cluster
    crowding = cluster.crowding
    latency = cost.fixed + cost.peer * (cluster.ranks - 1) * crowding + cost.switch * (crowding - 1)
    if cluster.hosts > 1:
        latency += cluster.latency
    transfer = 0.0
    for to_owner, from_owner in messages:
        both = to_owner + from_owner
        # What a rank sends and receives, as one that asks and as an owner; all to and from W - 1 others.
        handled = (both.sum() - both) + both * (cluster.ranks - 1)
        transfer += max(busiest(handled * cost.byte, cluster), _network_seconds(to_owner, from_owner, cluster))
    return {"latency": latency * len(messages), "transfer": transfer}


def _network_seconds(to_owner: Floats, from_owner: Floats, cluster: Cluster) -> float:
    """Of the busiest host, which sends and receives at the same time."""
    if cluster.hosts == 1:
        return 0.0
    here, elsewhere = cluster.ranks_per_host, cluster.ranks - cluster.ranks_per_host
    to_host, from_host = (amount.reshape(cluster.hosts, here).sum(axis=1) for amount in (to_owner, from_owner))
    sent = (to_host.sum() - to_host) * here + from_host * elsewhere
    received = to_host * elsewhere + (from_host.sum() - from_host) * here
    return float(np.maximum(sent, received).max()) / cluster.bandwidth
