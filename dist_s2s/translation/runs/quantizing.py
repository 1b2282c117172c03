"""A run in eight bits: written as a run of its own, which is smaller and faster to translate with, and read again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.models.int8 import load_int8, weight_names
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.storage.checkpoint import core_tensors, read_manifest
from dist_s2s.storage.derived_runs import write_derived_run
from dist_s2s.storage.publishing import save_tensors
from dist_s2s.storage.quantization import INT8, SCALE, quantize
from dist_s2s.storage.run_directory import CONFIG
from dist_s2s.storage.table_rows import load_rows, shard_file
from dist_s2s.storage.training_state import model_tensors
from dist_s2s.translation.translator import Translator

_OUTPUT_TABLES = ("output_table", "output_bias")


def write_quantized(
    translator: Translator,
    run_dir: Path,
    checkpoint: Path,
    output: Path,
    more_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a translator in eight bits as a run with one checkpoint. For one process alone.

    Tables, the weights of LSTM and linear layers become int8 with a scale for each row; biases and layer normalisation
    stay float32. The output layer becomes a part of the model, which each rank then holds whole, whatever it was. The
    output is there whole or not at all.

    Args:
        translator: on one process, with the weights of the checkpoint.
        run_dir: the run that it is of.
        more_files: small files that the run has besides.

    Raises:
        UserError: if the output exists or cannot be written.
    """
    tables = {name: table for name, table in translator.tables.items() if name not in _OUTPUT_TABLES}

    def write(folder: Path) -> dict[str, str]:
        sums = {}
        for name, table in tables.items():
            file = shard_file(name, 0, 1)
            codes, scale = quantize(_whole(table))
            sums[file] = save_tensors(folder / file, {"weight": codes, SCALE: scale})
        core = {f"model.{key}": value for key, value in _core(translator)}
        return sums | {"core.safetensors": save_tensors(folder / "core.safetensors", core)}

    texts = translator.source.files("source") | translator.target.files("target")
    files = {CONFIG: _config(translator.config, output).to_yaml().encode(), **texts, **(more_files or {})}
    told = {"quantized": INT8, "tables": {name: _describe(table) for name, table in tables.items()}}
    write_derived_run(run_dir, output, files, read_manifest(checkpoint), write, told, translator.ranks)


def load_quantized(checkpoint: Path, translator: Translator) -> None:
    """Load a checkpoint of ``write_quantized``. Calls no collectives.

    Args:
        translator: built for a quantised run; this fills it.

    Raises:
        UserError: for a file that is missing or damaged, or of another model.
    """
    manifest, device = read_manifest(checkpoint), translator.ranks.device
    tensors = {
        key: value.to(device) for key, value in model_tensors(core_tensors(checkpoint, manifest), averaged=True).items()
    }
    try:
        load_int8(translator.core, tensors)
    except KeyError as error:
        raise UserError(f"{checkpoint} holds another model: it lacks {error.args[0]}") from None
    except RuntimeError as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise UserError(f"{checkpoint} holds another model: {reasons}") from None
    translator.output.layer = translator.core.output
    for name, table in translator.tables.items():
        load_rows(checkpoint, manifest, name, table, only_weight=True, as_words=True)


def _core(translator: Translator) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's tensors, and those of an output layer that is not a part of it, quantised if they are to be."""
    int8 = set(weight_names(translator.core))
    tensors = translator.core.state_dict()
    outputs = translator.output.tables
    if outputs:
        weight, bias = (_whole(outputs[name])[: translator.target.vocabulary.num_ids] for name in _OUTPUT_TABLES)
        tensors |= {"output.weight": weight, "output.bias": bias[:, 0]}
        int8.add("output.weight")
    for name, value in tensors.items():
        if name in int8:
            yield from zip((name, f"{name}.{SCALE}"), quantize(value), strict=True)
        else:
            yield name, value.float()


def _whole(table: DistributedEmbedding) -> Tensor:
    return table.weight.detach()[table.partition.positions(torch.arange(table.num_embeddings))]


def _describe(table: DistributedEmbedding) -> dict[str, Any]:
    sizes = {"num_embeddings": table.num_embeddings, "embedding_dim": table.embedding_dim}
    return {**sizes, "layout": "contiguous", "world_size": 1}


def _config(config: Config, output: Path) -> Config:
    """Return the configuration of the run that is written."""
    model = config.model
    sizes = {"output": "replicated", "tie_embeddings": False, "readout_size": model.readout_dim}
    training = config.training.model_copy(update={"precision": "fp32"})  # what its scales and biases are
    changes = {"run_dir": output.resolve(), "model": model.model_copy(update=sizes), "training": training}
    return config.model_copy(update=changes)
