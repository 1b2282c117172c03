"""Ensembles and samples of real translators: of other sizes, kinds and ranks, and which runs don't fit together."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.models.sampling import SamplingOptions
from dist_s2s.models.search import contains
from dist_s2s.text.vocabulary import UNK, Vocabulary
from dist_s2s.training.origin import read_origin
from dist_s2s.translation.output.start import NEVER_CHOSEN, NEVER_CHOSEN_BUT_UNKNOWN
from dist_s2s.translation.predictor import member_of
from dist_s2s.translation.runs import members
from dist_s2s.translation.runs.exporting import export_quantized
from dist_s2s.translation.runs.load import load_translator, read_run
from dist_s2s.translation.runs.members import load_members
from dist_s2s.translation.scores.forced import encode_pairs, force
from dist_s2s.translation.search.joining import Candidate
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.search.sampling import Sampling
from dist_s2s.translation.search.terms import Terms
from dist_s2s.translation.translator import Translator
from tests.rank_pool import RankPool
from tests.toy_corpus import PAIRS

ALONE = Ranks.alone()
SENTENCES = [*(source for source, _ in PAIRS[:6]), "", PAIRS[0][0], PAIRS[1][0] * 4]
DRAWN = SearchOptions(extra_length=9, length_factor=0, sampling=Sampling(SamplingOptions(4, 0.9, 9, 0.95), seed=3))
Found = list[list[tuple[str, float]]]


@pytest.fixture(scope="module")
def quantized(saved_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("quantized") / "run"
    export_quantized(saved_run, output, ALONE)
    return output


def three(saved_run: Path, quantized: Path, ranks: Ranks) -> list[Translator]:
    """Of int8; of another size, with a sharded output in float64 and n-grams, untrained; and an earlier checkpoint."""
    saved = read_run(saved_run)
    sizes = {"embedding_dim": 6, "hidden_size": 10, "readout_size": 7, "output": "sharded", "input_feeding": True}
    changes = {
        "model": saved.config.model.model_copy(update=sizes),
        "embedding": saved.config.embedding.model_copy(update={"ngrams": (2,), "ngram_rows": 50, "ngram_dim": 5}),
        "training": saved.config.training.model_copy(update={"precision": "fp64"}),
    }
    other = Translator(saved.config.model_copy(update=changes), saved.source, saved.target, ranks)
    other.core.eval()
    checkpoint = saved_run / "checkpoints" / "step-1"
    return [load_translator(quantized, ranks), other, load_members([checkpoint], ranks)]


def ensemble(saved_run: Path, quantized: Path, ranks: Ranks) -> Translator:
    first, *others = three(saved_run, quantized, ranks)
    first.others = others
    first.batching = first.batching.with_options(4, 12)  # the last sentence is translated in pieces
    return first


def found(candidates: list[Candidate]) -> list[tuple[str, float]]:
    return [(each.text, each.score) for each in candidates]


def work(ranks: Ranks, saved_run: Path, quantized: Path, sentences: list[str]) -> tuple[Found, Found, Found]:
    """What an ensemble finds with a beam; what it draws; and of samples those with the least risk."""
    translator = ensemble(saved_run, quantized, ranks)
    options = SearchOptions(3, 0, 9, length_penalty=0.6, coverage_penalty=0.2, min_length=2, no_repeat_ngram=2)
    prefixes, terms = [[7] if text else [] for text in sentences], Terms.of([(PAIRS[0][0][:1], [9, 8])])
    beam = translator.translate(sentences, options, n_best=2, prefixes=prefixes, terms=terms)
    ids = beam[0].n_best[0].parts[0].ids
    assert ids[0] == 7
    assert contains(ids, [9, 8])
    drawn = translator.translate(sentences, DRAWN)
    assert DRAWN.sampling is not None
    chosen = translator.translate(sentences, replace(DRAWN, sampling=replace(DRAWN.sampling, by_risk=True)))
    return tuple([found(each.n_best) for each in part] for part in (beam, drawn, chosen))  # type: ignore[return-value]


def work_on_ranks(group: dist.ProcessGroup, saved_run: Path, quantized: Path) -> tuple[Found, Found, Found]:
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), group)
    return work(ranks, saved_run, quantized, SENTENCES)


def check_equal(parts: tuple[Found, ...], expected: tuple[Found, ...]) -> None:
    for part, other in zip(parts, expected, strict=True):
        for mine, others in zip(part, other, strict=True):
            assert [text for text, _ in mine] == [text for text, _ in others]
            assert [score for _, score in mine] == pytest.approx([score for _, score in others], abs=1e-5)


def test_beams_and_samples_are_the_same_on_ranks_and_one_by_one(
    saved_run: Path, quantized: Path, ranks: RankPool
) -> None:
    alone = work(ALONE, saved_run, quantized, SENTENCES)
    for parts in ranks.run(work_on_ranks, saved_run, quantized, world_size=2):
        check_equal(parts, alone)
    few = [SENTENCES[number] for number in (8, 2, 6)]
    again = work(ALONE, saved_run, quantized, few)
    check_equal(again, tuple([part[number] for number in (8, 2, 6)] for part in alone))
    _, drawn, chosen = alone
    assert drawn[0] == drawn[7]  # the same sentence
    assert [len(each) for each in drawn] == [4] * 6 + [1, 4, 4]
    assert len({text for text, _ in drawn[0]}) > 1
    for samples, [choice] in zip(drawn, chosen, strict=True):
        assert choice in samples


def test_tokens_that_are_asked_for_are_of_the_distribution_of_the_best(saved_run: Path, quantized: Path) -> None:
    translator = ensemble(saved_run, quantized, ALONE)
    members = (translator, *translator.others)
    width = sum(member_of(each.config, each.core, each.output, each.target).output_dim for each in members)
    outputs_NX, output = torch.randn(3, width), translator.predictor.output
    for forbidden in (NEVER_CHOSEN, NEVER_CHOSEN_BUT_UNKNOWN):
        best_NK, ids_NK = output.best_tokens(outputs_NX, len(translator.target.vocabulary) - len(forbidden), forbidden)
        assert torch.equal(output.given_tokens(outputs_NX, ids_NK, forbidden), best_NK)
        assert bool((ids_NK == UNK).any()) == (UNK not in forbidden)


def test_what_cannot_be_asked_of_samples_and_ensembles(saved_run: Path) -> None:
    translator = load_translator(saved_run, ALONE)
    with pytest.raises(ValueError, match="samples cannot have prefixes or terms"):
        translator.translate(SENTENCES[:1], DRAWN, prefixes=[[7]])
    other = load_translator(saved_run, ALONE)
    other.config = Config.model_validate({"model": {"attention": "none"}})
    translator.others = [other]
    with pytest.raises(UserError, match="coverage_penalty goes by attention, which this run does not have"):
        SearchOptions(2, coverage_penalty=0.1).check(translator, *translator.others)


def test_likelihoods_are_means_of_the_members_probabilities(saved_run: Path, quantized: Path) -> None:
    translators = three(saved_run, quantized, ALONE)
    alone = [force(each, encode_pairs(each, PAIRS[:3])) for each in translators]
    together = ensemble(saved_run, quantized, ALONE)
    for number, each in enumerate(force(together, encode_pairs(together, PAIRS[:3]))):
        members = torch.tensor([scores[number].log_probabilities for scores in alone], dtype=torch.float64)
        expected = members.exp().mean(0).log()
        assert each.log_probabilities == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_run_twice_is_the_run_and_its_checkpoint_may_be_named(saved_run: Path) -> None:
    options = SearchOptions(2, 0, 9)
    alone = load_translator(saved_run, ALONE).translate(SENTENCES, options)
    twice = load_members([saved_run, saved_run / "checkpoints" / "step-2"], ALONE).translate(SENTENCES, options)
    expected, again = ([found(each.n_best) for each in translations] for translations in (alone, twice))
    check_equal((again,), (expected,))
    one, two = (load_members([saved_run / "checkpoints" / f"step-{step}"], ALONE) for step in (1, 2))
    assert not torch.equal(one.target_table.weight, two.target_table.weight)


def test_a_checkpoint_is_found_from_within_its_run_and_through_links(
    saved_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "best").symlink_to(saved_run / "checkpoints" / "step-2")
    moved = shutil.copytree(saved_run, tmp_path / "moved")
    shutil.move(moved / "checkpoints", tmp_path / "disk")
    (moved / "checkpoints").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(saved_run / "checkpoints")
    expected = load_translator(saved_run, ALONE).target_table.weight
    for path in (Path("step-2"), tmp_path / "best", moved / "checkpoints" / "step-2"):
        assert torch.equal(load_members([path], ALONE).target_table.weight, expected)
        assert read_origin(path).checkpoint.samefile(path)


def test_the_likeliest_token_alone_is_greedy_search(saved_run: Path) -> None:
    translator = load_translator(saved_run, ALONE)
    searched, drawn = SearchOptions(1, 0, 9), replace(DRAWN, sampling=Sampling(SamplingOptions(top_k=1)))
    expected, again = (
        [found(each.n_best) for each in translator.translate(SENTENCES, options)] for options in (searched, drawn)
    )
    check_equal((again,), (expected,))


def test_runs_of_other_vocabularies_are_refused(
    saved_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(saved_run, tmp_path / "copy")
    saved = read_run(saved_run)
    tokens = list(saved.target.vocabulary.tokens)
    data = saved.config.data.model_copy(update={"source_tokenizer": "words"})
    changed: dict[str, dict[str, object]] = {
        f"target side than {saved_run}: its vocabulary has {len(tokens) - 1} tokens, not {len(tokens)}; an": {
            "target": replace(saved.target, vocabulary=Vocabulary(tokens[:-1]))
        },
        f"target side than {saved_run}: its token 4 is {tokens[5]!r}, not {tokens[4]!r}; an": {
            "target": replace(saved.target, vocabulary=Vocabulary([*tokens[:4], tokens[5], tokens[4], *tokens[6:]]))
        },
        f"source side than {saved_run}: its Unicode form is NFKC, not NFC; an": {
            "source": replace(saved.source, normalization="NFKC")
        },
        f"source side than {saved_run}: its tokenizer is words, not characters; an": {
            "config": saved.config.model_copy(update={"data": data})
        },
    }
    for message, change in changed.items():
        runs = {saved_run: saved, copy: replace(saved, **change)}  # type: ignore[arg-type]
        monkeypatch.setattr(members, "read_run_or_checkpoint", runs.__getitem__)
        with pytest.raises(UserError) as error:
            load_members([saved_run, copy], ALONE)
        assert str(error.value) == f"{copy} has another {message} ensemble needs runs of the same vocabularies"
