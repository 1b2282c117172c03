"""The rules by which a run on a person's own files is configured."""

import pytest

from dist_s2s.preparation.choosing import Choice, choose_encoding, choose_sizes, unset

CHINESE = [("我喜欢喝茶。", "I like to drink tea.")]


def values(choices: list[Choice]) -> dict[str, object]:
    assert all(choice.reason for choice in choices)
    return {choice.key: choice.value for choice in choices}


def test_a_script_without_spaces_is_cut_into_characters() -> None:
    chosen = values(choose_encoding(CHINESE))
    assert chosen == {"data.source_tokenizer": "characters", "data.target_tokenizer": "words"}


def test_many_rare_words_are_spelt_in_subwords(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("茶", f"a{number} b") for number in range(1200)]
    chosen = values(choose_encoding(pairs))
    assert chosen["data.target_tokenizer"] == "bpe"
    assert "data.min_frequency" not in chosen
    monkeypatch.setattr("dist_s2s.preparation.choosing.find_spec", lambda name: None)
    chosen = values(choose_encoding(pairs))
    assert (chosen["data.target_tokenizer"], chosen["data.target_vocabulary_size"]) == ("words", 30_000)
    assert chosen["data.min_frequency"] == 2


def test_sizes_grow_with_the_data() -> None:
    small = values(choose_sizes(1_000, 8_000, "cuda"))
    large = values(choose_sizes(1_000_000, 20_000_000, "cuda"))
    assert (small["model.hidden_size"], small["data.batch_tokens"], small["training.warmup_steps"]) == (256, 300, 50)
    assert (large["model.hidden_size"], large["data.batch_tokens"], large["training.warmup_steps"]) == (512, 2000, 200)
    assert small["model.dropout"] > large["model.dropout"]
    assert large["training.validate_every"] == large["training.checkpoint_every"] == 1000


@pytest.mark.parametrize(
    ("num_pairs", "hidden_size", "batch_tokens"), [(4_999, 256, 700), (40_000, 256, 1000), (500_000, 512, 2000)]
)
def test_a_cpu_trains_smaller_models(num_pairs: int, hidden_size: int, batch_tokens: int) -> None:
    chosen = values(choose_sizes(num_pairs, 15 * num_pairs, "cpu"))
    assert (chosen["model.hidden_size"], chosen["data.batch_tokens"]) == (hidden_size, batch_tokens)


def test_what_is_set_is_not_chosen() -> None:
    choices = choose_encoding(CHINESE)
    left = unset(choices, {"data": {"target_tokenizer"}, "model": set(), "training": set()})
    assert [choice.line() for choice in left] == [
        "data.source_tokenizer = characters: its script has no spaces between words"
    ]
