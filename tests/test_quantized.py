"""A run with int8 weights: it translates as the run that it was made of, on any ranks, and does nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest
from dist_s2s.storage.durable_files import write_checked_json
from dist_s2s.storage.quantization import dequantize, quantize
from dist_s2s.storage.run_directory import checkpoint_to_resume
from dist_s2s.training.origin import read_origin
from dist_s2s.translation.runs.averaging import newest, write_average
from dist_s2s.translation.runs.exporting import export_quantized
from dist_s2s.translation.runs.load import load_translator, read_run
from dist_s2s.translation.runs.quantizing import write_quantized
from dist_s2s.translation.scores.forced import encode_pairs, force
from dist_s2s.translation.tables.int8_table import Int8Embedding
from dist_s2s.translation.translator import Translator
from tests.commands import run
from tests.rank_pool import RankPool
from tests.toy_corpus import PAIRS

ALONE = Ranks.alone()
SENTENCES = [source for source, _ in PAIRS[:7]]


@pytest.fixture(scope="module")
def quantized(saved_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("quantized") / "run"
    finished = run("dist_s2s.export", "--run", saved_run, "--quantize", "int8", "--output", output)
    assert finished.output.startswith(f"{saved_run / 'checkpoints' / 'step-2'} with int8 weights in {output}: 0.")
    return output


def test_tables_are_off_by_half_a_scale(saved_run: Path, quantized: Path) -> None:
    run_before, smaller = load_translator(saved_run, ALONE), load_translator(quantized, ALONE)
    assert load_config(quantized / "config.yaml", {}).run_dir == quantized
    for name in ("source_table", "target_table"):
        old, new = run_before.tables[name], smaller.tables[name]
        assert isinstance(new, Int8Embedding)
        ids = torch.arange(old.num_embeddings)
        with torch.no_grad():
            codes, scale = quantize(old(ids))
            assert torch.equal(new(ids), dequantize(codes, scale))
            assert torch.allclose(new(ids), old(ids), atol=float(scale.max()) * 0.51)
    numbers = [*run_before.core.parameters(), *(table.weight for table in run_before.tables.values())]
    assert smaller.num_parameters == run_before.num_parameters == sum(map(torch.Tensor.numel, numbers))
    pairs = PAIRS[:5]
    scores = [force(each, encode_pairs(each, pairs)) for each in (run_before, smaller)]
    for before, after in zip(*scores, strict=True):
        assert after.total == pytest.approx(before.total, rel=0.05)


def search_on_ranks(group: dist.ProcessGroup, run_dir: Path) -> list[tuple[list[int], float]]:
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)
    return [(each.ids, each.score) for each in load_translator(run_dir, ranks).search(SENTENCES)]


def test_it_translates_the_same_on_ranks_and_by_the_command(quantized: Path, ranks: RankPool) -> None:
    translator = load_translator(quantized, ALONE)
    alone = translator.search(SENTENCES)
    one_by_one = [translator.search([sentence])[0] for sentence in SENTENCES]
    assert [each.ids for each in one_by_one] == [each.ids for each in alone]
    for found in ranks.run(search_on_ranks, quantized, world_size=2):
        assert [ids for ids, _ in found] == [each.ids for each in alone]
        assert [score for _, score in found] == pytest.approx([each.score for each in alone], abs=1e-4)
    texts = [each.text for each in translator.translate(SENTENCES)]
    lines = run("dist_s2s.translate", "--run", quantized, stdin="\n".join(SENTENCES).encode()).output
    assert lines.splitlines()[: len(texts)] == texts


def scores_on_ranks(group: dist.ProcessGroup, run_dir: Path) -> list[float]:
    translator = load_translator(run_dir, Ranks(dist.get_rank(group), dist.get_world_size(group), ALONE.device, group))
    return [each.total for each in force(translator, encode_pairs(translator, PAIRS[:1]))]


def test_ranks_without_a_pair_score_along(quantized: Path, ranks: RankPool) -> None:
    translator = load_translator(quantized, ALONE)
    expected = [each.total for each in force(translator, encode_pairs(translator, PAIRS[:1]))]
    for found in ranks.run(scores_on_ranks, quantized):
        assert found == pytest.approx(expected)


def double(config: Config) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": "fp64"})})


def tied(config: Config) -> Config:
    model = config.model.model_copy(update={"tie_embeddings": True, "output": "sharded"})
    return config.model_copy(update={"model": model})


def with_ngrams(config: Config) -> Config:
    model = config.model.model_copy(update={"output": "sampled", "encoder_layers": 2, "layer_norm": True})
    embedding = config.embedding.model_copy(update={"ngrams": (2,), "ngram_rows": 50, "ngram_dim": 6})
    return config.model_copy(update={"model": model, "embedding": embedding})


@pytest.mark.parametrize("change", [tied, with_ngrams, double])
def test_other_models_are_written_too(saved_run: Path, tmp_path: Path, change: Callable[[Config], Config]) -> None:
    saved = read_run(saved_run)
    translator = Translator(change(saved.config), saved.source, saved.target, ALONE)
    translator.core.eval()
    with torch.no_grad():
        for table in translator.source_rows.named_tables.values():
            table.weight.normal_()
    write_quantized(translator, saved_run, saved.checkpoint, tmp_path / "run")
    smaller = load_translator(tmp_path / "run", ALONE)
    assert not {"output_table", "output_bias"} & smaller.tables.keys()
    before, after = (force(each, encode_pairs(each, PAIRS[:5])) for each in (translator, smaller))
    assert [each.total for each in after] == pytest.approx([each.total for each in before], rel=0.05)
    smaller.others = [translator]
    assert len(smaller.translate(SENTENCES[:2])) == 2


def test_nothing_trains_with_it(quantized: Path, tmp_path: Path) -> None:
    for use, purpose in (
        (lambda: checkpoint_to_resume(load_config(quantized / "config.yaml", {})), "training goes on from"),
        (lambda: read_origin(quantized), r"training\.init_from begins with"),
        (lambda: write_average(quantized, newest(quantized, None), tmp_path / "mean", ALONE), "an average is made of"),
        (lambda: export_quantized(quantized, tmp_path / "again", ALONE), "export --quantize begins with"),
    ):
        with pytest.raises(UserError, match=rf"step-2 is quantised \(int8\), for translating only, and {purpose} full"):
            use()
    assert list(tmp_path.iterdir()) == []


def flip_a_bit(checkpoint: Path) -> None:
    file = checkpoint / "target_table-0-of-1.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def of_another_kind(checkpoint: Path) -> None:
    write_checked_json(checkpoint / "manifest.json", {**read_manifest(checkpoint), "quantized": "int3"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, r"target_table-0-of-1\.safetensors is damaged"),
        (of_another_kind, r"step-2 is quantised as int3, but this version reads only int8"),
    ],
)
def test_what_cannot_be_read_is_named(
    quantized: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(quantized, tmp_path / "run")
    damage(*list_checkpoints(tmp_path / "run" / "checkpoints"))
    with pytest.raises(UserError, match=message):
        load_translator(tmp_path / "run", ALONE)


def test_the_command_says_what_goes_together(saved_run: Path, quantized: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--quantize", "int8", "--side", "source"], "--side is used only without --quantize"),
        (["--quantize", "int8", "--format", "word2vec"], "--format is used only without --quantize"),
        ([], "give --side source or target, whose vectors to write, or --quantize int8"),
    ):
        finished = run("dist_s2s.export", "--run", saved_run, *options, "--output", tmp_path / "x", status=2)
        assert finished.errors[0].startswith(f"error: {message}")
    with pytest.raises(UserError, match="exists; give another --output"):
        export_quantized(saved_run, quantized, ALONE)
