"""A run with a shortlist: it chooses from what each sentence lists, whatever the batch and the ranks."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.numpy import load_file, save_file

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.models import Demand, Hypothesis
from dist_s2s.storage.run_directory import checkpoint_to_resume
from dist_s2s.text.batches import collate
from dist_s2s.text.corpus import Example
from dist_s2s.text.vocabulary import EOS, PAD, UNK
from dist_s2s.training.origin import read_origin
from dist_s2s.training.shortlist import make_shortlist
from dist_s2s.translation.output.start import NEVER_CHOSEN
from dist_s2s.translation.runs.exporting import export_quantized, export_shortlist
from dist_s2s.translation.runs.load import load_translator, read_run
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.search.shortlist import SHORTLIST, Shortlist
from dist_s2s.translation.translator import Translator
from tests.commands import run
from tests.rank_pool import RankPool
from tests.toy_corpus import PAIRS

ALONE = Ranks.alone()
SENTENCES = [source for source, _ in PAIRS[::7]]
SIZES = ["--shortlist_frequent", 2, "--shortlist_per_token", 3]


@pytest.fixture(scope="module")
def listed(saved_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("shortlist") / "run"
    finished = run("dist_s2s.export", "--run", saved_run, "--shortlist", *SIZES, "--output", output)
    assert finished.output.splitlines() == [
        "48 pairs of sentences: learning which tokens translate which",
        f"{saved_run / 'checkpoints' / 'step-2'} with a shortlist in {output}",
    ]
    return output


@pytest.fixture(scope="module")
def listed_int8(saved_run: Path, listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("shortlist") / "int8"
    run("dist_s2s.export", "--run", saved_run, "--quantize", "int8", "--shortlist", *SIZES, "--output", output)
    assert (output / SHORTLIST).read_bytes() == (listed / SHORTLIST).read_bytes()
    return output


def tied(config: Config) -> Config:
    model = config.model.model_copy(update={"tie_embeddings": True, "output": "sharded"})
    return config.model_copy(update={"model": model})


def replicated(config: Config) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"output": "replicated"})})


def untrained(run_dir: Path, ranks: Ranks, change: Callable[[Config], Config]) -> Translator:
    saved = read_run(run_dir)
    translator = Translator(change(saved.config), saved.source, saved.target, ranks)
    translator.shortlist = Shortlist.load(run_dir / SHORTLIST, saved.source, saved.target)
    return translator


def everything(translator: Translator) -> Shortlist:
    """A list of all tokens."""
    count = translator.target.vocabulary.num_ids
    ids = np.array([token for token in range(count) if token not in NEVER_CHOSEN])
    return Shortlist(ids, np.zeros(translator.source.vocabulary.num_ids + 1, dtype=np.int64), ids[:0])


def same(some: list[list[Hypothesis]], others: list[list[Hypothesis]]) -> bool:
    """Whether the ids are the same, and the scores nearly."""
    pairs = [pair for both in zip(some, others, strict=True) for pair in zip(*both, strict=True)]
    return all(a.ids == b.ids and a.score == pytest.approx(b.score, abs=1e-5) for a, b in pairs)


@pytest.mark.parametrize("kind", ["replicated", "tied", "int8"])
def test_a_list_of_all_tokens_changes_nothing(listed: Path, listed_int8: Path, kind: str) -> None:
    if kind == "int8":
        translator = load_translator(listed_int8, ALONE)
    else:
        translator = untrained(listed, ALONE, tied if kind == "tied" else replicated)
    demands = [Demand(prefix=(5, 7)), Demand(phrases=((6, 8),)), *[Demand()] * (len(SENTENCES) - 2)]
    options = SearchOptions(3, 1.0, 5)
    for each in (options, replace(options, replace_unknown=True), replace(options, coverage_penalty=0.3)):
        translator.shortlist = everything(translator)
        found = translator.search_n_best(SENTENCES, 3, each, demands=demands)
        assert same(found, translator.search_n_best(SENTENCES, 3, replace(each, shortlist=False), demands=demands))
        assert found[0][0].ids[:2] == [5, 7]


def search_on_ranks(group: dist.ProcessGroup, run_dir: Path) -> list[list[tuple[list[int], float]]]:
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)
    translators = [load_translator(run_dir, ranks), untrained(run_dir, ranks, tied)]
    return [[(each.ids, each.score) for each in translator.search(SENTENCES[:3])] for translator in translators]


def test_sentences_choose_from_their_lists_in_any_batch_on_any_ranks(listed: Path, ranks: RankPool) -> None:
    translators = [load_translator(listed, ALONE), untrained(listed, ALONE, tied)]
    alone = []
    for translator in translators:
        together = translator.search_n_best(SENTENCES, 2, SearchOptions(2, 1.0, 5))
        one_by_one = [translator.search_n_best([each], 2, SearchOptions(2, 1.0, 5))[0] for each in SENTENCES]
        assert same(together, one_by_one)
        alone.append(translator.search(SENTENCES[:3]))
        shortlist = translator.shortlist
        assert shortlist is not None
        for source, found in zip(translator.source.encode_all(SENTENCES), together, strict=True):
            allowed = {*shortlist.frequent.tolist(), EOS}
            for token in (*source, EOS):
                allowed |= set(shortlist.ids[shortlist.ends[token] : shortlist.ends[token + 1]].tolist())
            assert len(allowed) < len(translator.target.vocabulary) - 4
            assert all(set(each.ids) <= allowed for each in found)
    for found in ranks.run(search_on_ranks, listed, world_size=2):
        for theirs, mine in zip(found, alone, strict=True):
            assert [ids for ids, _ in theirs] == [each.ids for each in mine]
            assert [score for _, score in theirs] == pytest.approx([each.score for each in mine], abs=1e-4)


def test_lists_have_each_token_once_and_padding_last(listed: Path) -> None:
    saved = read_run(listed)
    shortlist = Shortlist(np.array([9, 5]), np.array([0, 0, 0, 1, 1, 3, 3]), np.array([7, 9, 8]))
    batch = collate([Example([4, 5], []), Example([5], [])], [0, 1], 1)
    lists = shortlist.lists(batch, NEVER_CHOSEN, [[], [6, 5]])
    assert lists.ids_U.tolist() == [PAD, EOS, 5, 6, 7, 8, 9]
    assert lists.ids_U[lists.places_BL].tolist() == [[EOS, 5, 7, 8, 9], [EOS, 5, 6, 7, 9]]
    of_unknown = shortlist.lists(batch, [PAD], ())
    assert all(UNK in row for row in of_unknown.ids_U[of_unknown.places_BL].tolist())
    assert len(Shortlist.load(listed / SHORTLIST, saved.source, saved.target).frequent) == 2


def test_the_commands_use_it_or_not(listed: Path, saved_run: Path) -> None:
    def lines(run_dir: Path, *options: str) -> str:
        command = ("dist_s2s.translate", "--run", run_dir, "--extra_length", 5, "--json", *options)
        return run(*command, stdin="\n".join(SENTENCES).encode()).output

    assert lines(listed, "--no_shortlist") == lines(saved_run) != lines(listed)


def test_it_is_for_translating_from_its_own_vocabularies(saved_run: Path, listed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step-2 has a shortlist for translating, without .* --training.init_from"):
        checkpoint_to_resume(load_config(listed / "config.yaml", {}))
    assert read_origin(listed).checkpoint.name == "step-2"  # its weights are those of the run
    saved = read_run(listed)
    shortlist = Shortlist.load(listed / SHORTLIST, saved.source, saved.target)
    for export in (export_quantized, lambda *paths: export_shortlist(*paths[:2], shortlist, ALONE)):
        with pytest.raises(UserError, match="has a shortlist already: give the run that it was exported from"):
            export(listed, tmp_path / "x", ALONE)
    shutil.copytree(saved_run, tmp_path / "run")
    file = tmp_path / "run" / SHORTLIST
    save_file(load_file(listed / SHORTLIST), file, {"source": "another"})
    with pytest.raises(UserError, match="belongs to another source vocabulary than the run's: export the run again"):
        load_translator(tmp_path / "run", ALONE)
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"shortlist\.safetensors cannot be read as a shortlist: "):
        load_translator(tmp_path / "run", ALONE)


def test_the_command_says_what_goes_together(saved_run: Path, listed_int8: Path, tmp_path: Path) -> None:
    for run_dir, options, message in (
        (saved_run, ["--shortlist", "--side", "source"], "--side is used only without --shortlist"),
        (saved_run, SIZES[:2], "--shortlist_frequent is used only with --shortlist"),
        (
            listed_int8,
            ["--shortlist"],
            f"{listed_int8 / 'checkpoints' / 'step-2'} is quantised (int8), for translating",
        ),
    ):
        finished = run("dist_s2s.export", "--run", run_dir, *options, "--output", tmp_path / "x", status=2)
        assert finished.errors[0].startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_the_training_data_are_needed(saved_run: Path, tmp_path: Path) -> None:
    saved = read_run(saved_run)
    data = saved.config.data.model_copy(update={"train": str(tmp_path / "gone.tsv")})
    with pytest.raises(UserError, match=r"--shortlist reads what the run was trained on: .*gone\.tsv"):
        make_shortlist(saved_run, replace(saved, config=saved.config.model_copy(update={"data": data})), 2, 3, print)
