"""Probes of TorchRec: EmbeddingCollection, divided by rows, with the fused kernels that it recommends."""
from collections.abc import Sequence
from typing import Any
import torch
import torch.distributed as dist
from torch import Tensor
from feature_checks import LEARNING_RATE, checks
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingEnv

OPT = {"SGD": EmbOptimType.EXACT_SGD, "Adam": EmbOptimType.ADAM, "Adagrad": EmbOptimType.EXACT_ADAGRAD, "RowWiseAdagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD}

class TorchrecTable:
    def __init__(self, weights, optimizer="SGD", deduplicate=False, group=None, sharding=row_wise, kernel="fused", fused=None, qcomm=None, **options):
        group = group or dist.group.WORLD
        configs = [EmbeddingConfig(name=f"t{i}", embedding_dim=w.shape[1], num_embeddings=len(w), feature_names=[f"f{i}"], **options) for i, w in enumerate(weights)]
        ec = EmbeddingCollection(tables=configs, device=torch.device("meta"))
        sharder = EmbeddingCollectionSharder(fused_params={"optimizer": OPT[optimizer], "learning_rate": LEARNING_RATE, "eps":1e-10 if "Ada" in optimizer and optimizer!="Adam" else 1e-8, **(fused or {})}, use_index_dedup=deduplicate, qcomm_codecs_registry=qcomm)
        plan = construct_module_sharding_plan(ec, {c.name: sharding(compute_kernel=kernel) for c in configs}, sharder, local_size=group.size(), world_size=group.size(), device_type="cpu")
        self.module = sharder.shard(ec, plan, ShardingEnv.from_process_group(group), torch.device("cpu"))
        self.group = group
        for i, w in enumerate(weights):
            for s in self.shards(i):
                o, z = s.metadata.shard_offsets, s.metadata.shard_sizes
                s.tensor.detach().copy_(w[o[0]:o[0]+z[0], o[1]:o[1]+z[1]])
    def shards(self, i=0):
        return self.module.state_dict()[f"embeddings.t{i}.weight"].local_shards()
    def lookup(self, *ids):
        kjt = KeyedJaggedTensor.from_lengths_sync(keys=[f"f{i}" for i in range(len(ids))], values=torch.cat([x.flatten() for x in ids]), lengths=torch.cat([torch.ones(x.numel(), dtype=torch.long) for x in ids]))
        out = self.module(kjt).wait()
        return [out[f"f{i}"].values().view(*x.shape, -1) for i, x in enumerate(ids)]
    def update(self): pass
    def whole(self):
        pieces = [None]*self.group.size()
        dist.all_gather_object(pieces, [s.tensor.detach() for s in self.shards()], group=self.group)
        return torch.cat([s for p in pieces for s in p])
    def local_rows(self): return sum(len(s.tensor) for s in self.shards())

PROBES = checks(TorchrecTable)
