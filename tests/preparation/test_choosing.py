"""The rules by which a run on a person's own files is configured."""

import pytest

from dist_s2s.config import Config
from dist_s2s.config.loading import with_keys
from dist_s2s.preparation.choosing import Choice, choose_encoding, choose_sizes, unset
from dist_s2s.text.inputs import Pair

CHINESE = [("我喜欢喝茶。", "I like to drink tea.")]
TIES = ("model.tie_source", "model.tie_embeddings", "model.scale_embeddings")
ENGLISH = [("der Tee", "the tea")] * 1000


def values(choices: list[Choice]) -> dict[str, object]:
    assert all(choice.reason for choice in choices)
    return {choice.key: choice.value for choice in choices}


def config(**sections: dict[str, object]) -> Config:
    return Config.model_validate(sections)


def test_a_script_without_spaces_is_cut_into_characters() -> None:
    chosen = values(choose_encoding(CHINESE, config()))
    assert chosen == {
        "data.source_tokenizer": "characters",
        "data.target_tokenizer": "words",
        "model.tie_embeddings": True,
        "model.scale_embeddings": True,
        "model.lexical": True,
    }


def test_enough_words_are_spelt_in_subwords(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("茶", "a b")] * 1000
    chosen = values(choose_encoding(pairs, config()))
    assert chosen["data.target_tokenizer"] == "bpe"
    assert not {"data.min_frequency", "data.joint_vocabulary", "model.tie_source"} & set(chosen)
    monkeypatch.setattr("dist_s2s.preparation.choosing.find_spec", lambda name: None)
    chosen = values(choose_encoding(pairs, config()))
    assert (chosen["data.target_tokenizer"], chosen["data.target_vocabulary_size"]) == ("words", 30_000)
    assert chosen["data.min_frequency"] == 2


def test_two_sides_of_subwords_share_a_vocabulary_and_a_table() -> None:
    chosen = values(choose_encoding(ENGLISH, config()))
    assert chosen["data.source_tokenizer"] == chosen["data.target_tokenizer"] == "bpe"
    assert chosen["data.joint_vocabulary"] is chosen["model.tie_source"] is chosen["model.tie_embeddings"] is True


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"data": {"joint_vocabulary": False}}, {"data.joint_vocabulary", "model.tie_source"}),
        ({"data": {"source_tokenizer": "words"}}, {"data.joint_vocabulary", "model.tie_source"}),
        ({"data": {"source_vocabulary_size": 900}}, {"data.joint_vocabulary", "model.tie_source"}),
        ({"data": {"source_vectors": "a.vec"}}, {"data.joint_vocabulary", *TIES}),
        ({"data": {"target_vectors": "a.vec"}}, {"data.joint_vocabulary", *TIES}),
        ({"model": {"output": "replicated"}}, {"model.tie_embeddings", "model.scale_embeddings"}),
        ({"model": {"readout_size": 64}}, {"model.tie_embeddings", "model.scale_embeddings"}),
        ({"model": {"tie_embeddings": False}}, {"model.tie_embeddings", "model.scale_embeddings"}),
        ({"model": {"attention": "none"}}, {"model.lexical"}),
    ],
)
def test_what_goes_against_what_is_set_is_not_chosen(given: dict[str, dict[str, object]], left_out: set[str]) -> None:
    every, chosen = choose_encoding(ENGLISH, config()), choose_encoding(ENGLISH, config(**given))
    keys = {f"{section}.{key}" for section, some in given.items() for key in some}
    assert {choice.key for choice in every} - {choice.key for choice in chosen} - keys == left_out - keys
    joined: dict[str, dict[str, object]] = {name: dict(some) for name, some in given.items()}
    for choice in chosen:
        section, _, key = choice.key.partition(".")
        joined.setdefault(section, {}).setdefault(key, choice.value)
    config(**joined)  # is valid as a whole


@pytest.mark.parametrize(
    "given",
    [
        {"data": {"joint_vocabulary": True, "target_tokenizer": "characters", "source_tokenizer": "characters"}},
        {"data": {"source_vocabulary_size": 900, "target_vocabulary_size": 900}},
        {"model": {"tie_embeddings": True, "readout_size": 128, "embedding_dim": 128}},
    ],
)
@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("pairs", [ENGLISH, ENGLISH[:9]])
def test_choices_go_with_what_is_set(
    given: dict[str, dict[str, object]], installed: bool, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dist_s2s.preparation.choosing.find_spec", lambda _: object() if installed else None)
    set_here = config(**given)
    choices = choose_encoding(pairs, set_here)
    there = {f"{section}.{key}" for section, some in given.items() for key in some}
    with_keys(set_here, {choice.key: choice.value for choice in choices if choice.key not in there})


def test_a_side_that_begins_with_vectors_keeps_its_words() -> None:
    chosen = values(choose_encoding(ENGLISH, config(data={"target_vectors": "a.vec"})))
    assert (chosen["data.source_tokenizer"], chosen["data.target_tokenizer"]) == ("bpe", "words")


def test_tied_rows_have_the_size_of_the_readout() -> None:
    given = Config.model_validate({"model": {"tie_embeddings": True, "readout_size": 128}})
    assert values(choose_encoding(ENGLISH, given))["model.embedding_dim"] == 128


def test_sizes_grow_with_the_data() -> None:
    small = values(choose_sizes(1_000, 8_000, "cuda"))
    large = values(choose_sizes(1_000_000, 20_000_000, "cuda"))
    assert (small["model.hidden_size"], small["data.batch_tokens"], small["training.warmup_steps"]) == (256, 300, 50)
    assert (large["model.hidden_size"], large["data.batch_tokens"], large["training.warmup_steps"]) == (512, 2000, 200)
    assert small["model.dropout"] > large["model.dropout"]
    assert large["training.validate_every"] == large["training.checkpoint_every"] == 1000


@pytest.mark.parametrize(
    ("num_pairs", "device", "dropout"), [(9_999, "cpu", 0.3), (29_000, "cpu", 0.1), (29_000, "cuda", 0.4)]
)
def test_dropout_goes_by_how_often_a_pair_is_seen(num_pairs: int, device: str, dropout: float) -> None:
    assert values(choose_sizes(num_pairs, 15 * num_pairs, device))["model.dropout"] == dropout


@pytest.mark.parametrize(
    ("num_pairs", "hidden_size", "batch_tokens"), [(4_999, 256, 700), (40_000, 256, 1000), (500_000, 512, 2000)]
)
def test_a_cpu_trains_smaller_models(num_pairs: int, hidden_size: int, batch_tokens: int) -> None:
    chosen = values(choose_sizes(num_pairs, 15 * num_pairs, "cpu"))
    assert (chosen["model.hidden_size"], chosen["data.batch_tokens"]) == (hidden_size, batch_tokens)


def test_what_is_set_is_not_chosen() -> None:
    choices = choose_encoding(CHINESE, config())[:2]
    left = unset(choices, config(data={"target_tokenizer": "words"}))
    assert [choice.line() for choice in left] == [
        "data.source_tokenizer = characters: its script has no spaces between words"
    ]
