"""Probes of TorchRec: an EmbeddingCollection divided by rows, with the fused kernels."""

# mypy: disable-error-code="import-not-found"

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torchrec
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torchrec import JaggedTensor
from torchrec.distributed import comm_ops
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.model_parallel import DMPCollection
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.sharding_plan import column_wise, construct_module_sharding_plan, row_wise, table_wise
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.distributed.types import BoundsCheckMode, ShardingPlan
from torchrec.modules.mc_modules import LFU_EvictionPolicy, MCHManagedCollisionModule
from torchrec.quant.embedding_modules import EmbeddingCollection as QuantisedCollection

from common.collectives import collectives
from common.torchrec_tables import Bags, Tables, jagged, undivided
from features.catalogue import Answer, whether
from features.probes import one_line, rows
from features.table_checks import IDS, TableChecks, applied_gradient, both_reductions


class System(TableChecks):
    """TorchRec has no output layer, and takes a KeyedJaggedTensor instead of ids."""

    distribution = "torchrec"
    package: ClassVar = torchrec
    absent: ClassVar = {
        "grow": r"def (grow|add_rows|resize|expand)(_table|_embeddings)?\(",
        **dict.fromkeys(
            ("sharded_cross_entropy", "own_tokens", "logits_in_chunks", "tied_tables"),
            r"class \w*CrossEntropy|F\.cross_entropy|log_softmax\(",
        ),
        "sampled_softmax": "(?i)sampled_?softmax",
        "tensor_parallel_layers": "(?i)parallel_?linear|ColwiseParallel",
    }
    refusals: ClassVar = {
        **dict.fromkeys(("padding_idx", "max_norm", "scale_grad_by_freq"), TypeError),
        "sparse_adam": AssertionError,
        "deduplicated_ids": NotImplementedError,
    }

    def tables(self, weights: Sequence[Tensor], optimizer: str = "SGD", bags: bool = False, **options: Any) -> Tables:
        return (Bags if bags else Tables)(weights, optimizer, **options)

    def plain_tensors(self) -> Answer:
        try:
            self.tables([rows(132)]).module(IDS)
        except AttributeError as error:
            return Answer("no", one_line(error))
        return Answer("error", "takes a tensor")

    def empty_batch(self, **options: Any) -> Answer:
        """Try a sample without ids; and no sample at all."""
        answer = super().empty_batch(sample_if_empty=True)
        try:
            super().empty_batch()
        except RuntimeError as error:
            evidence = f"with a sample that has no ids {answer.evidence}; with no sample {one_line(error)}"
            return Answer("partly", evidence)
        return answer

    def bad_id_raises(self, culprits: Sequence[int] = (1,), **options: Any) -> Answer:
        default = super().bad_id_raises(culprits)
        strict = super().bad_id_raises(culprits, fused={"bounds_check_mode": BoundsCheckMode.FATAL})
        return Answer(strict.verdict, f"{default.evidence}; with BoundsCheckMode.FATAL {strict.evidence}")

    def gradient_accumulation(self, **options: Any) -> Answer:
        """Try the fused kernel, and the dense one, which on a CPU works for bags alone."""
        fused = super().gradient_accumulation()
        dense = super().gradient_accumulation(bags=True, kernel="dense")
        if fused.verdict == "yes" or dense.verdict != "yes":
            return fused
        return Answer("partly", f"{fused.evidence}; in an EmbeddingBagCollection with dense kernel {dense.evidence}")

    def several_tables(self, **options: Any) -> Answer:
        """Try tables for ids, and tables for bags of them."""
        bags = super().several_tables(bags=True)
        try:
            return super().several_tables()
        except ValueError as error:
            return whether(bags.verdict == "yes", f"{one_line(error)}; for bags {bags.evidence}", "partly")

    def deduplicated_ids(self, **options: Any) -> Answer:
        return super().deduplicated_ids(sharder={"use_index_dedup": True})

    def reduced_precision(self) -> Answer:
        config = QCommsConfig(forward_precision=CommType.BF16, backward_precision=CommType.BF16)
        codecs = get_qcomm_codecs_registry(config, device=torch.device("cpu"))
        return self.less_traffic(sharder={"qcomm_codecs_registry": codecs})

    def mean_or_sum(self) -> Answer:
        """Use the switch set_gradient_division, which is one for the whole process."""
        mean = applied_gradient(self.tables([rows(132)]))
        comm_ops.set_gradient_division(False)
        total = applied_gradient(self.tables([rows(132)]))
        return both_reductions(mean, total, "with set_gradient_division(False), for all tables", "partly")

    def resharding(self) -> Answer:
        checkpoint = Path("checkpoint")

        def load_state(after: Tables, _: object) -> None:
            state = after.state()
            load(state, checkpoint_id=checkpoint)
            after.module.load_state_dict(state["module"])
            after.module.fused_optimizer.load_state_dict(state["optimizer"])

        return self.reshard(lambda before: save(before.state(), checkpoint_id=checkpoint), load_state, "RowWiseAdagrad")

    def replicated_shards(self) -> Answer:
        module = nn.Sequential(undivided())
        sharder = EmbeddingCollectionSharder()
        plan = construct_module_sharding_plan(module[0], {"t0": row_wise()}, sharder, 2, 2, "cpu")
        DMPCollection(module, torch.device("cpu"), ShardingPlan({"0": plan}), 4, 2, self.group, sharders=[sharder])
        return Answer("error", "DMPCollection runs on a CPU")

    def prefetch(self) -> Answer:
        """Count the collectives inside the model's forward, with and without TrainPipelineSparseDist."""
        model, batch = _CountingModel(self.tables([rows(132)]).module), jagged([IDS])
        model(batch)
        plain = model.collectives
        pipeline = TrainPipelineSparseDist(model, torch.optim.SGD(model.linear.parameters(), 0.1), torch.device("cpu"))
        found = pipeline.progress(iter([batch, batch, batch]))
        return whether(
            torch.equal(found, rows(132)[IDS.flatten()]) and model.collectives < plain,
            f"{plain} collectives in forward, {model.collectives} with TrainPipelineSparseDist",
        )

    def pooled_lookups(self) -> Answer:
        found = self.tables([rows(132)], bags=True).module(jagged([IDS], bag=3)).wait().to_dict()["f0"]
        right = torch.allclose(found, rows(132)[IDS].sum(dim=1), atol=1e-5)
        return whether(right, f"an EmbeddingBagCollection gives sums of shape {tuple(found.shape)}")

    def other_shardings(self) -> Answer:
        """Divide by columns, and put a table whole on rank 1."""
        held = []
        kinds: list[Callable[..., Any]] = [partial(column_wise, ranks=[0, 1]), partial(table_wise, rank=1)]
        for kind in kinds:
            tables = self.tables([rows(132, 8)], sharding=kind)
            if not torch.equal(tables.lookup(IDS)[0], rows(132, 8)[IDS]):
                return Answer("no", "lookups give other rows than those of the ids")
            held.append([tuple(shard.tensor.shape) for shard in tables.shards()])
        return Answer("yes", f"rank {self.rank} holds {held[0]} with column_wise, {held[1]} with table_wise")

    def automatic_placement(self) -> Answer:
        planner = EmbeddingShardingPlanner(topology=Topology(world_size=2, compute_device="cpu"))
        plan = planner.plan(nn.Sequential(undivided()), [EmbeddingCollectionSharder()])
        return Answer("yes", f"EmbeddingShardingPlanner chooses {plan.plan['0']['t0'].sharding_type}")

    def unbounded_ids(self) -> Answer:
        module = MCHManagedCollisionModule(
            zch_size=4,
            device=torch.device("cpu"),
            eviction_policy=LFU_EvictionPolicy(),
            eviction_interval=1,
            input_hash_size=2**62,
        )
        ids = {"f0": JaggedTensor(values=torch.tensor([10**12, 7]), lengths=torch.tensor([1, 1]))}
        module.profile(ids)
        mapped = module(ids)["f0"].values().tolist()
        distinct = len(set(mapped)) == 2 and max(mapped) < 4
        return whether(distinct, f"MCHManagedCollisionModule of 4 rows maps ids 10^12 and 7 to {mapped}")

    def host_memory_cache(self) -> Answer:
        """Do nothing: the kernel fused_uvm_caching means nothing without a GPU."""
        return Answer("not run", "needs CUDA")

    def fused_optimizer(self, **options: Any) -> Answer:
        """Look at the rows after backward alone."""
        tables = self.tables([rows(132)])
        found = tables.lookup(IDS)[0]
        found.backward(torch.ones_like(found))
        moved = float((tables.whole() - rows(132)).abs().max())
        stored = [parameter.grad is not None for parameter in tables.module.parameters()]
        return whether(moved > 0 and not any(stored), f"backward moves rows by {moved:.1f}, and leaves no .grad")

    def quantised_inference(self) -> Answer:
        collection = undivided("cpu")
        collection.embeddings["t0"].weight.data.copy_(rows(132))
        as_type = torch.ao.quantization.PlaceholderObserver.with_args
        collection.qconfig = torch.ao.quantization.QConfig(as_type(dtype=torch.float), as_type(dtype=torch.qint8))
        found = QuantisedCollection.from_float(collection)(jagged([IDS]))["f0"].values()
        difference = float((found - rows(132)[IDS.flatten()]).abs().max())
        return whether(difference < 0.05, f"torchrec.quant's EmbeddingCollection is right to {difference:.3f}")


class _CountingModel(nn.Module):
    """Counts the collectives of its tables' last forward."""

    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables, self.linear, self.collectives = tables, nn.Linear(4, 1), 0

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        with collectives() as sizes:
            found = self.tables(batch)["f0"].values()
        self.collectives = len(sizes)
        return self.linear(found).sum(), found
