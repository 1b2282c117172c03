"""Runs that begin with what another has learnt: rows and moments by word, frozen parts, rates of parts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import save_checkpoint
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.training.fine_tuning import start_from
from dist_s2s.training.optimizers import grouped_names
from dist_s2s.training.origin import check_models_fit
from dist_s2s.training.trainer import Trainer
from dist_s2s.translation.runs.load import SavedRun
from dist_s2s.translation.translator import Translator
from tests.commands import run
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.reference import assemble
from tests.toy_corpus import options
from tests.training.test_equality import DataParallel, make_config, make_examples

OLD = [f"w{number}" for number in range(4, 131)]
NEW = {"source": [*OLD[::-2], "a", "b"], "target": ["c", *OLD[5:], *OLD[:3], "d"]}  # permuted, fewer and more
CASES = [("sparse_adam", "contiguous", "ngrams"), ("rowwise_adam", "round_robin", "sharded")]


def side_of(tokens: list[str]) -> TextSide:
    return TextSide(WhitespaceTokenizer(), Vocabulary([*SPECIALS, *tokens]))


def new_trainer(group: dist.ProcessGroup, config: Config, source: list[str], target: list[str]) -> Trainer:
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group, second_group(2))
    translator = Translator(config, side_of(source), side_of(target), ranks)
    limit = min(len(source), len(target))
    examples = ExampleList(
        Example([min(i, limit) for i in e.source], [min(i, limit) for i in e.target]) for e in make_examples()
    )
    return Trainer(config, examples, translator, DataParallel(group))


def snapshot(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    """This rank's rows of each table with its moments, and the core with its moments."""
    state = trainer.state
    found = {
        name: {"weight": table.weight.detach().clone()}
        | {key: value.clone() for key, value in state.table_optimizer.state[table.weight].items() if key != "step"}
        for name, table in state.tables.items()
    }
    for name, parameter in state.core.named_parameters():
        found[name] = {"weight": parameter.detach().clone()}
        found[name] |= {key: value.clone() for key, value in state.core_optimizer.state[parameter].items()}
    return found


def fine_tune(group: dist.ProcessGroup, case: tuple[str, str, str], folder: Path) -> tuple[Any, Any, Any, list[str]]:
    config = make_config(*case, folder)
    config = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 5})})
    old = new_trainer(group, config, OLD, OLD)
    old.train()
    checkpoint = save_checkpoint(folder, old.state, 5, asdict(old.progress), old.ranks)
    later = config.training.model_copy(update={"part_learning_rates": {"decoder.*": 0.5}, "seed": 9})
    new = new_trainer(group, config.model_copy(update={"training": later}), NEW["source"], NEW["target"])
    untouched = snapshot(new)
    lines = start_from(new, SavedRun(checkpoint, config, side_of(OLD), side_of(OLD)))
    moved = snapshot(new)
    new.train()  # the moments fit
    with old.averaged():
        return snapshot(old), untouched, moved, lines


def by_row(snapshots: list[Any], name: str, key: str, layout: str) -> Tensor:
    parts = [found[name].get(key) for found in snapshots]
    return assemble(parts, layout)


@pytest.mark.parametrize("case", CASES)
def test_rows_and_moments_go_by_word(ranks: RankPool, tmp_path: Path, case: tuple[str, str, str]) -> None:
    old, untouched, moved, lines = zip(*ranks.run(fine_tune, case, tmp_path, world_size=2), strict=True)
    assert lines[0] == lines[1]
    assert "source: 64 of 66 tokens have rows there, 2 are new" in lines[0]
    assert "target: 125 of 127 tokens have rows there, 2 are new" in lines[0]
    layout, old_tokens = case[1], [*SPECIALS, *OLD]
    for name in moved[0]:
        is_rows, is_output = (
            name in ("source_table", "target_table", "output_table", "output_bias"),
            name
            in (
                "output.weight",
                "output.bias",
            ),
        )
        for key, value in moved[0][name].items():
            if not is_rows and not is_output:  # n-grams' rows among them, which go by spelling: all stay in place
                assert torch.equal(value, old[0][name][key]), (name, key)
                assert torch.equal(moved[1][name][key], old[1][name][key]), (name, key)
                continue
            tokens = [*SPECIALS, *NEW["source" if name == "source_table" else "target"]]
            if is_rows:
                before, after = by_row(old, name, key, layout), by_row(moved, name, key, layout)
                fresh = by_row(untouched, name, key, layout) if key == "weight" else torch.zeros_like(after)
            elif value.dim() == 0:  # Adam's step
                continue
            else:
                before, after = old[0][name][key], value
                fresh = untouched[0][name]["weight"] if key == "weight" else torch.zeros_like(after)
            for number, token in enumerate(tokens):
                expected = before[old_tokens.index(token)] if token in old_tokens else fresh[number]
                assert torch.equal(after[number], expected), (name, key, token)


def test_the_order_of_parameters_follows_their_rates() -> None:
    config = Config.model_validate({"training": {"part_learning_rates": "b.*=0.5, c=2"}})
    assert grouped_names(config, ["a", "b.x", "c", "b.y", "d"]) == {1.0: ["a", "d"], 0.5: ["b.x", "b.y"], 2.0: ["c"]}


def test_another_model_is_refused_with_a_line_for_each_difference(tmp_path: Path) -> None:
    there, here = Config(), Config.model_validate({"model": {"hidden_size": 64, "attention": "none"}})
    with pytest.raises(UserError) as error:
        check_models_fit(SavedRun(tmp_path, there, side_of([]), side_of([])), here)
    assert str(error.value).splitlines()[1:] == [
        "model.hidden_size is 256 there, 64 here",
        "model.attention is dot there, none here",
    ]
    here = Config.model_validate({"embedding": {"ngrams": [3], "ngram_dim": 8}})
    with pytest.raises(UserError) as error:
        check_models_fit(SavedRun(tmp_path, there, side_of([]), side_of([])), here)
    assert str(error.value).splitlines()[1:] == [
        "embedding.ngrams is [] there, [3] here",
        "embedding.ngram_dim is 64 there, 8 here",
    ]


def test_null_and_what_it_stands_for_are_the_same_model(tmp_path: Path) -> None:
    there = Config.model_validate({"model": {"num_layers": 2, "hidden_size": 64}})
    same = {"num_layers": 3, "encoder_layers": 2, "decoder_layers": 2, "hidden_size": 64, "readout_size": 64}
    saved = SavedRun(tmp_path, there, side_of([]), side_of([]))
    check_models_fit(saved, Config.model_validate({"model": same}))
    for change, line in (
        ({"decoder_layers": None}, "model.decoder_layers is 2 there, 3 here"),
        ({"readout_size": 32}, "model.readout_size is 64 there, 32 here"),
        ({"layer_norm": True}, "model.layer_norm is false there, true here"),
    ):
        with pytest.raises(UserError) as error:
            check_models_fit(saved, Config.model_validate({"model": same | change}))
        assert str(error.value).splitlines()[1:] == [line]


def test_the_command(corpus: Path, tmp_path: Path) -> None:
    run("dist_s2s.train", *options(corpus, tmp_path / "old"), ranks=2)
    corpus_of_new_words = tmp_path / "new.tsv"
    corpus_of_new_words.write_text(corpus.read_text(encoding="utf-8").replace("树", "花").replace("tree", "flower"))
    settings = options(
        corpus_of_new_words,
        tmp_path / "new",
        training__init_from=tmp_path / "old",
        training__frozen="encoder.*,source_table",
        training__max_steps=2,
        data__vocabulary="extend",
        data__mix=corpus,
        data__mix_share=0.5,
        data__mix_valid=corpus,
    )
    finished = run("dist_s2s.train", *settings)
    assert "the other domain: BLEU" in finished.output
    summary = json.loads((tmp_path / "new" / "summary.json").read_text(encoding="utf-8"))
    assert 0 <= summary["other_bleu"] <= summary["other_chrf"] <= 100
    assert "1 are new" in finished.output
    words = [(tmp_path / name / "target_vocabulary.txt").read_text(encoding="utf-8").split() for name in ("old", "new")]
    assert words[1] == [*words[0], "flower"]
    for name, value, message in (
        ("training.init_from", tmp_path / "nowhere", "is neither a run directory nor a checkpoint of one"),
        ("training.frozen", "encodr.*", "training.frozen: no part is called 'encodr.*'; there are source_table"),
        ("data.source_tokenizer", "words", "the source side's tokenizer is characters there, words here"),
    ):
        wrong = [*settings, f"--run_dir={tmp_path / name}", f"--{name}={value}"]
        finished = run("dist_s2s.train", *wrong, status=2)
        assert message in finished.errors[0]
        assert not (tmp_path / name / "checkpoints").exists()
