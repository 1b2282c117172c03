"""Scores of given translations against the logits of the whole vocabulary, and against those of a search."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dist_s2s import UserError
from dist_s2s.analysis.answers import SavedSide
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks, joined_ranks
from dist_s2s.text.batches import collate
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.text.vocabulary import EOS, SPECIALS, UNK, Vocabulary
from dist_s2s.translation.batching import Batching
from dist_s2s.translation.output.start import NEVER_CHOSEN
from dist_s2s.translation.runs.load import load_translator
from dist_s2s.translation.scores import forced
from dist_s2s.translation.scores.forced import ForcedScore, Likelihood, encode_pairs, force
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator
from tests.toy_corpus import PAIRS

UNKNOWN = ("我看见鸭子。", "I saw a duck .")


def with_every_option(ranks: Ranks) -> Translator:
    """Untrained, with all that a model may have, and n-grams that add something."""
    model = {"embedding_dim": 8, "hidden_size": 10, "readout_size": 6, "encoder_layers": 2, "decoder_layers": 3}
    model |= dict.fromkeys(("layer_norm", "lexical", "input_feeding", "tie_source", "scale_embeddings"), True)
    values = {
        "model": model | {"output": "replicated", "attention": "additive", "variational_dropout": True},
        "embedding": {"ngrams": [2, 3], "ngram_rows": 50, "ngram_dim": 4},
        "data": {"joint_vocabulary": True} | dict.fromkeys(("source_tokenizer", "target_tokenizer"), "characters"),
    }
    tokens = sorted({token for pair in PAIRS for text in pair for token in make_tokenizer("characters").tokenize(text)})
    side = TextSide(make_tokenizer("characters"), Vocabulary([*SPECIALS, *tokens]))
    translator = Translator(Config.model_validate(values), side, side, ranks)
    torch.nn.init.normal_(translator.tables["ngram_table"].weight)
    return translator


@pytest.fixture(scope="module")
def translator(saved_run: Path) -> Iterator[Translator]:
    with joined_ranks() as alone:
        yield load_translator(saved_run, alone)


@torch.no_grad()
def log_softmax(translator: Translator, example: forced.Example) -> torch.Tensor:
    """Log-probabilities of all tokens at each position of the target, [T, V], with teacher forcing, pair by pair."""
    batch = collate([example], [0], 1)
    rows = translator.source_rows(batch), batch.source_lengths, translator.target_table(batch.target_in)
    with translator.evaluating():
        return translator.core(*rows)[0].double().log_softmax(dim=-1)


def test_each_token_has_the_probability_of_teacher_forcing(translator: Translator) -> None:
    pairs = [*PAIRS, UNKNOWN]
    examples = encode_pairs(translator, pairs)
    scores = force(translator, examples)
    for score, example in zip(scores, examples, strict=True):
        targets = torch.tensor([*example.target, EOS])
        expected = log_softmax(translator, example).gather(1, targets[:, None])[:, 0]
        assert score.ids == example.target
        assert score.log_probabilities == pytest.approx(expected.tolist(), abs=1e-5)
        assert len(score.tokens(translator.target)) == len(score.log_probabilities)
    assert scores[-1].ids.count(UNK) == 1
    assert force(translator, []) == []


@torch.no_grad()
def test_with_every_option_of_the_model_tokens_have_the_probability_of_its_steps() -> None:
    with joined_ranks() as alone:
        translator = with_every_option(alone)
        [example] = examples = encode_pairs(translator, [("我看见猫。", "I saw")])
        batch, expected = collate([example], [0], 1), []
        with translator.evaluating():
            encoding, state = translator.core.encode(translator.source_rows(batch), batch.source_lengths)
            for row, token in zip(translator.target_table(batch.target_in)[0], batch.target_out[0], strict=True):
                logits, state = translator.core.step(row[None], state, encoding)
                expected.append(logits[0].log_softmax(dim=-1)[token].item())
        assert force(translator, examples)[0].log_probabilities == pytest.approx(expected, abs=1e-5)
        for name in ("source", "target"):
            seen = SavedSide.of_translator(translator, Path("step-1"), name)
            assert seen.free_rows == 0
            assert seen.rows.num_rows == len(translator.target.vocabulary)


def test_companions_in_a_batch_change_nothing_but_rounding(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = encode_pairs(translator, [*PAIRS, UNKNOWN])
    together = [score.log_probabilities for score in force(translator, examples)]
    monkeypatch.setattr(translator, "batching", Batching(batch_size=1))
    alone = [score.log_probabilities for score in force(translator, examples)]
    for mine, other in zip(together, alone, strict=True):
        assert mine == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_search_gives_its_hypothesis_the_same_score_but_for_tokens_that_it_never_chooses(
    translator: Translator, beam_size: int
) -> None:
    sources = [source for source, _ in PAIRS[::7]]
    found = translator.search(sources, SearchOptions(beam_size))
    encoded = translator.source.encode_all(sources)
    examples = [forced.Example(source, mine.ids) for source, mine in zip(encoded, found, strict=True)]
    for mine, score, example in zip(found, force(translator, examples), examples, strict=True):
        never = log_softmax(translator, example)[:, NEVER_CHOSEN].exp().sum(dim=1)
        chosen = [value - math.log1p(-p) for value, p in zip(score.log_probabilities, never.tolist(), strict=True)]
        chosen = chosen[: len(chosen) - mine.is_cut]  # the end of a translation that was cut is not its own
        assert sum(chosen) / len(chosen) == pytest.approx(mine.score, abs=1e-5)


def test_sums_and_perplexities() -> None:
    scores = [ForcedScore([UNK, 7], [-1.0, -2.0, -3.0]), ForcedScore([], [-2.0])]
    assert (scores[0].total, scores[0].mean) == (-6.0, -2.0)
    found = Likelihood.of(scores, ["a b", "c"])
    assert found == Likelihood(-8.0, 4, 1, 4)
    assert found.perplexity == found.character_perplexity == pytest.approx(math.e**2)
    assert Likelihood(-1e6, 10, 0, 0).perplexity == math.inf
    assert Likelihood(-1e6, 10, 0, 0).character_perplexity == math.inf


def test_a_pair_that_is_too_long_is_told(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forced, "MOST_POSITIONS", 200)
    with pytest.raises(UserError, match=r"pair 2 is too long to be scored: \d+ source tokens times 52 target tokens"):
        encode_pairs(translator, [PAIRS[0], (PAIRS[0][0], "a " * 51)])
