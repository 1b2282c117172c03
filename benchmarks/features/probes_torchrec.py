"""Probes of TorchRec: an EmbeddingCollection divided by rows, with the fused kernels."""

# mypy: disable-error-code="import-not-found"

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchrec
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torchrec.distributed import comm_ops
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.model_parallel import DMPCollection
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.distributed.types import BoundsCheckMode, ShardingPlan
from torchrec.quant.embedding_modules import EmbeddingCollection as QuantisedCollection

from common.torchrec_tables import Bags, Tables, jagged, undivided
from features import lookup_checks as feature_checks
from features import update_checks as feature_update_checks
from features.catalogue import Answer, whether
from features.evidence import Probe, become_a_world_of_one, collectives, installed, one_line, refusing, rows, search
from features.lookup_checks import IDS, compare, lookup_probes, reduced_precision, train
from features.torchrec_placement import automatic_placement, host_memory_cache, other_shardings, unbounded_ids
from features.update_checks import applied_gradient, update_probes


def pip_install(group: dist.ProcessGroup) -> Answer:
    """Whether pip has all it takes."""
    Tables([rows(132)]).lookup(IDS)
    return installed("torchrec")


def plain_tensors(group: dist.ProcessGroup) -> Answer:
    """A tensor in the place of a KeyedJaggedTensor."""
    try:
        Tables([rows(132)]).module(IDS)
    except AttributeError as error:
        return Answer("no", one_line(error))
    return Answer("error", "takes a tensor")


def empty_batch(group: dist.ProcessGroup) -> Answer:
    """A sample without ids; and no sample at all."""
    answer = feature_checks.empty_batch(partial(Tables, sample_if_empty=True), group)
    try:
        feature_checks.empty_batch(Tables, group)
    except RuntimeError as error:
        return Answer("partly", f"with a sample that has no ids {answer.evidence}; with no sample {one_line(error)}")
    return answer


def bad_id_raises(group: dist.ProcessGroup) -> Answer:
    """The default, and the strictest mode."""
    default = feature_checks.bad_id_raises(Tables, group)
    fatal = partial(Tables, fused={"bounds_check_mode": BoundsCheckMode.FATAL})
    strict = feature_checks.bad_id_raises(fatal, group)
    return Answer(strict.verdict, f"{default.evidence}; with BoundsCheckMode.FATAL {strict.evidence}")


def gradient_accumulation(group: dist.ProcessGroup) -> Answer:
    """The fused kernel, and the dense one, which on a CPU works for bags alone."""
    fused = feature_update_checks.gradient_accumulation(Tables, group)
    dense = feature_update_checks.gradient_accumulation(partial(Bags, kernel="dense"), group)
    if fused.verdict == "yes" or dense.verdict != "yes":
        return fused
    return Answer("partly", f"{fused.evidence}; in an EmbeddingBagCollection with dense kernel {dense.evidence}")


def several_tables(group: dist.ProcessGroup) -> Answer:
    """Tables for ids, and tables for bags of them."""
    bags = feature_checks.several_tables(Bags, group)
    try:
        return feature_checks.several_tables(Tables, group)
    except ValueError as error:
        return whether(bags.verdict == "yes", f"{one_line(error)}; for bags {bags.evidence}", "partly")


def mean_or_sum(group: dist.ProcessGroup) -> Answer:
    """The switch set_gradient_division, which is one for the whole process."""
    mean = applied_gradient(Tables([rows(132)]))
    comm_ops.set_gradient_division(False)
    total = applied_gradient(Tables([rows(132)]))
    evidence = f"2 on each rank becomes {mean:.1f}; set_gradient_division(False) makes it {total:.1f} for all tables"
    return whether((round(mean, 4), round(total, 4)) == (2, 4), evidence, "partly")


def resharding(group: dist.ProcessGroup) -> Answer:
    """By torch.distributed.checkpoint; the step after it would go wrong without the optimizer's state."""
    before = Tables([rows(132)], "RowWiseAdagrad")
    train(before, IDS)
    save(before.state(), checkpoint_id=Path("checkpoint"))
    train(before, IDS)
    expected = before.whole()
    become_a_world_of_one()
    after = Tables([torch.zeros(132, 4)], "RowWiseAdagrad")
    state = after.state()
    load(state, checkpoint_id=Path("checkpoint"))
    after.module.load_state_dict(state["module"])
    after.module.fused_optimizer.load_state_dict(state["optimizer"])
    train(after, IDS)
    return compare(after, expected, "those of two ranks, a step later,")


def replicated_shards(group: dist.ProcessGroup) -> Answer:
    """DMPCollection on a CPU."""
    module = nn.Sequential(undivided())
    sharder = EmbeddingCollectionSharder()
    plan = construct_module_sharding_plan(module[0], {"t0": row_wise()}, sharder, 2, 2, "cpu")
    DMPCollection(module, torch.device("cpu"), ShardingPlan({"0": plan}), 4, 2, group, sharders=[sharder])
    return Answer("error", "DMPCollection runs on a CPU")


def prefetch(group: dist.ProcessGroup) -> Answer:
    """The collectives inside the model's forward, with and without TrainPipelineSparseDist."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = Tables([rows(132)]).module
            self.linear = nn.Linear(4, 1)
            self.collectives = 0

        def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
            with collectives() as sizes:
                found = self.tables(batch)["f0"].values()
            self.collectives = len(sizes)
            return self.linear(found).sum(), found

    model, batch = Model(), jagged([IDS])
    model(batch)
    plain = model.collectives
    pipeline = TrainPipelineSparseDist(model, torch.optim.SGD(model.linear.parameters(), 0.1), torch.device("cpu"))
    found = pipeline.progress(iter([batch, batch, batch]))
    return whether(
        torch.equal(found, rows(132)[IDS.flatten()]) and model.collectives < plain,
        f"{plain} collectives in forward, {model.collectives} with TrainPipelineSparseDist",
    )


def pooled_lookups(group: dist.ProcessGroup) -> Answer:
    """EmbeddingBagCollection."""
    found = Bags([rows(132)]).module(jagged([IDS], bag=3)).wait().to_dict()["f0"]
    right = torch.allclose(found, rows(132)[IDS].sum(dim=1), atol=1e-5)
    return whether(right, f"an EmbeddingBagCollection gives sums of shape {tuple(found.shape)}")


def fused_optimizer(group: dist.ProcessGroup) -> Answer:
    """Rows after backward alone."""
    tables = Tables([rows(132)])
    found = tables.lookup(IDS)[0]
    found.backward(torch.ones_like(found))
    moved = float((tables.whole() - rows(132)).abs().max())
    stored = [parameter.grad is not None for parameter in tables.module.parameters()]
    return whether(moved > 0 and not any(stored), f"backward moves rows by {moved:.1f}, and leaves no .grad")


def quantised_inference(group: dist.ProcessGroup) -> Answer:
    """torchrec.quant."""
    collection = undivided("cpu")
    collection.embeddings["t0"].weight.data.copy_(rows(132))
    as_type = torch.ao.quantization.PlaceholderObserver.with_args
    collection.qconfig = torch.ao.quantization.QConfig(as_type(dtype=torch.float), as_type(dtype=torch.qint8))
    found = QuantisedCollection.from_float(collection)(jagged([IDS]))["f0"].values()
    difference = float((found - rows(132)[IDS.flatten()]).abs().max())
    return whether(difference < 0.05, f"torchrec.quant's EmbeddingCollection is right to {difference:.3f}")


def _without(pattern: str) -> Probe:
    return lambda group: search(torchrec, pattern)


_BFLOAT16 = QCommsConfig(forward_precision=CommType.BF16, backward_precision=CommType.BF16)
_CODECS = {"qcomm_codecs_registry": get_qcomm_codecs_registry(_BFLOAT16, device=torch.device("cpu"))}

PROBES = refusing(
    {
        **lookup_probes(Tables),
        **update_probes(Tables),
        "pip_install": pip_install,
        "plain_tensors": plain_tensors,
        "empty_batch": empty_batch,
        "bad_id_raises": bad_id_raises,
        "gradient_accumulation": gradient_accumulation,
        "several_tables": several_tables,
        "deduplicated_ids": partial(
            feature_checks.deduplicated_ids, partial(Tables, sharder={"use_index_dedup": True})
        ),
        "mean_or_sum": mean_or_sum,
        "resharding": resharding,
        "grow": _without(r"def (grow|add_rows|resize|expand)(_table|_embeddings)?\("),
        "reduced_precision": partial(reduced_precision, Tables, partial(Tables, sharder=_CODECS)),
        "replicated_shards": replicated_shards,
        "prefetch": prefetch,
        **dict.fromkeys(
            ("sharded_cross_entropy", "own_tokens", "logits_in_chunks", "tied_tables"),
            _without("CrossEntropy|log_softmax"),
        ),
        "sampled_softmax": _without("(?i)sampled_?softmax"),
        "pooled_lookups": pooled_lookups,
        "other_shardings": other_shardings,
        "automatic_placement": automatic_placement,
        "unbounded_ids": unbounded_ids,
        "fused_optimizer": fused_optimizer,
        "host_memory_cache": host_memory_cache,
        "quantised_inference": quantised_inference,
        "tensor_parallel_layers": _without("(?i)parallel_?linear|ColwiseParallel"),
    },
    {
        "padding_idx": TypeError,
        "max_norm": TypeError,
        "scale_grad_by_freq": TypeError,
        "sparse_adam": AssertionError,
        "deduplicated_ids": NotImplementedError,
    },
)
