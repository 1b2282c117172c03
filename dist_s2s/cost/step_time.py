"""Seconds of a step, part by part.

A step has four parts: plan, rows, gradients, update. All but the last contain an exchange, at which every rank waits
for the others. So a part lasts

    work        of the rank that is done last, with cores shared evenly where a host has more ranks than cores: once for
                what ranks do for their own ids, and once for what they do as owners of rows
    latency     of its exchanges (in plan two all_to_alls, or one meeting): a fixed time, and one for each other rank.
                Each of them gets a message of its own, W - 1 in all and posted at once, and there is no tree. Where
                ranks share cores they also wait for each other to be scheduled, and between hosts the network's latency
                comes on top, once for each exchange
    transfer    of its bytes: the work of the busiest rank to send and receive them, or, if that is longer, what the
                busiest host's network takes. 0 in shared memory, where rows are copied by the work itself
"""

from dataclasses import dataclass, replace

import numpy as np

from dist_s2s.cost.coefficients import Coefficients, PartCost, TransportCost
from dist_s2s.cost.id_traffic import Floats
from dist_s2s.cost.memory import STATE_TENSORS
from dist_s2s.cost.problem import Cluster, Problem

_ID_BYTES = 8
_OF_ELEMENTS = {"id_element", "distinct_element", "request_element", "row_element", "cold_element", "converted"}
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


@dataclass(frozen=True)
class Work:
    """What a part's coefficients are multiplied by: for each rank its own ids' work, and an owner's, [W] each."""

    of_ids: dict[str, float]
    of_owners: dict[str, Floats]

    def seconds(self, cost: PartCost, slowdown: float = 1.0, element_slowdown: float = 1.0) -> tuple[Floats, Floats]:
        """Of both kinds, [W] each. The slowdowns multiply the work for each element, and all other work."""

        def each(name: str) -> float:
            return float(getattr(cost, name)) * (element_slowdown if name in _OF_ELEMENTS else slowdown)

        owners = sum((each(name) * amount for name, amount in self.of_owners.items()), np.zeros(1))
        return np.full_like(owners, sum(each(name) * amount for name, amount in self.of_ids.items())), owners


def step_time(problem: Problem, known: Coefficients) -> StepTime:
    """The time of a step of ``problem`` on machines with these coefficients."""
    work, of_transport = part_works(problem, known.cache_bytes), known.transports[problem.moves]
    parts = {
        name: _work_time(work[name], cost, problem.cluster, known)
        for name, cost in {
            "plan": of_transport.plan,
            "rows": of_transport.rows,
            "gradients": of_transport.gradients,
            "update": known.update[problem.optimizer],
        }.items()
    }
    if problem.cluster.ranks > 1:
        for name, messages in part_messages(problem).items():
            parts[name] = replace(parts[name], **_exchange_time(messages, problem, of_transport))
    return StepTime(**parts)


def part_works(problem: Problem, cache_bytes: float) -> dict[str, Work]:
    """The work of each part, by its name."""
    ids, dim, traffic = problem.ids, problem.embedding_dim, problem.traffic
    requests, touched = traffic.requests, traffic.touched
    table, sums = problem.dtype.itemsize / 4, problem.sum_dtype.itemsize / 4
    whole, per_row = STATE_TENSORS[problem.optimizer]
    per_host = problem.num_embeddings / problem.cluster.hosts
    table_bytes = per_host * dim * problem.dtype.itemsize
    state_bytes = per_host * (whole * dim + per_row) * problem.sum_dtype.itemsize
    cold = touched * _outside(cache_bytes, table_bytes)
    cold_update = touched * _outside(cache_bytes, table_bytes + state_bytes)
    dealt = problem.layout == "round_robin" and problem.cluster.ranks > 1
    row_changes = problem.row_wire_dtype != problem.dtype
    sum_changes, wire_changes = problem.dtype != problem.sum_dtype, problem.gradient_wire_dtype != problem.sum_dtype
    return {
        "plan": Work({"step": 1, "id": ids, "dealt_id": dealt * ids}, {"request": requests}),
        "rows": Work(
            {"step": 1, "id": ids, "id_element": ids * dim * table, "converted": row_changes * traffic.distinct * dim},
            {
                "request": requests,
                "request_element": requests * dim * table,
                "cold_row": cold,
                "cold_element": cold * dim * table,
                "converted": row_changes * requests * dim,
            },
        ),
        "gradients": Work(
            {
                "step": 1,
                "id": ids,
                "id_element": ids * dim * sums,
                "distinct_element": traffic.distinct * dim * sums,
                "converted": (sum_changes * ids + wire_changes * traffic.distinct) * dim,
            },
            {
                "request": requests,
                "request_element": requests * dim * sums,
                "converted": (wire_changes * requests + sum_changes * touched) * dim,
            },
        ),
        "update": Work(
            {"step": 1},
            {
                "row": touched,
                "row_element": touched * dim * sums,
                "cold_row": cold_update,
                "cold_element": cold_update * dim * sums,
            },
        ),
    }


def part_messages(problem: Problem) -> dict[str, list[tuple[Floats, Floats]]]:
    """For each part the bytes of its exchanges: what one rank sends to each owner [W], and each owner to one rank."""
    asked, dim = problem.traffic.asked, problem.embedding_dim
    nothing = np.zeros_like(asked)
    header = np.full_like(asked, _HEADER_NUMBERS * _ID_BYTES)
    requests = [(asked * _ID_BYTES, nothing)]
    return {
        "plan": requests if problem.moves == "shared_memory" else [(header, nothing), *requests],
        "rows": [(nothing, asked * dim * problem.row_wire_dtype.itemsize)],
        "gradients": [(asked * dim * problem.gradient_wire_dtype.itemsize, nothing)],
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


def _outside(cache_bytes: float, table_bytes: float) -> float:
    """The share of a table that the cache does not hold."""
    return 1 - min(1.0, cache_bytes / table_bytes)
