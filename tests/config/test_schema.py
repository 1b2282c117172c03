"""The configuration as an object: written, compared, and closed to changes."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from dist_s2s import UserError
from dist_s2s.config import KEYS, RESUMABLE_KEYS, Config, differences, load_config


def test_every_key_is_described() -> None:
    assert [key for key, field in KEYS.items() if not field.description] == []


def test_config_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().training.seed = 2
    with pytest.raises(ValidationError, match="Extra inputs"):
        Config.model_validate({"training": {"sede": 2}})


def test_to_yaml_round_trips(tmp_path: Path) -> None:
    awkward = {
        "run_dir": "runs/中文 mit Leerzeichen: # " + "x " * 60 + "y",
        "data.train": "null",
        "data.valid": "010",
        "data.test": "1e-3",
        "model.attention": "none",
        "model.input_feeding": "true",
        "training.learning_rate": "1e-05",
        "training.label_smoothing": "0.1234567890123456",
        "training.max_epochs": "null",
        "training.max_steps": "12",
    }
    config = load_config(None, awkward)
    for written in (config, Config()):
        (tmp_path / "config.yaml").write_text(written.to_yaml(), encoding="utf-8")
        assert load_config(tmp_path / "config.yaml", {}) == written
    assert list(yaml.safe_load(config.to_yaml())) == [
        "run_dir",
        "data",
        "model",
        "embedding",
        "training",
        "translation",
    ]


def test_differences_name_the_keys_that_a_resumed_run_may_not_change() -> None:
    there = Config()
    changes = {
        "model.hidden_size": "512",
        "model.input_feeding": "true",
        "embedding.learning_rate": "0.5",
        "training.seed": "2",
    }
    assert differences(there, load_config(None, changes)) == [
        "model.hidden_size: 256 there, 512 here",
        "model.input_feeding: false there, true here",
        "embedding.learning_rate: null there, 0.5 here",
        "training.seed: 1 there, 2 here",
    ]
    assert differences(there, there) == []


def test_resumable_keys_may_change() -> None:
    assert set(KEYS) > RESUMABLE_KEYS
    words = {"training.nonfinite_gradient": "skip", "embedding.transport": "collective"}
    words |= {"training.resume_with_other_data": "true", "training.metric": "chrf", "training.bleu_tokenizer": "zh"}
    words |= {"training.trackers": "mlflow", "training.report": "false", "translation.length_penalty": "7"}
    changed = load_config(None, dict.fromkeys(RESUMABLE_KEYS, "77") | words)
    assert all(KEYS[key].default not in (77, "77") for key in RESUMABLE_KEYS)
    assert (changed.training.max_steps, changed.run_dir) == (77, Path("77"))
    assert differences(Config(), changed) == []


def test_output_auto_goes_on_with_what_it_meant() -> None:
    there = load_config(None, {"model.output": "sharded"})
    assert differences(there, Config()) == []
    assert differences(Config(), there) == ["model.output: auto there, sharded here"]


def test_a_configuration_from_before_model_kind_means_an_lstm(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(Config().to_yaml().replace("  kind: lstm\n", ""), encoding="utf-8")
    assert "kind" not in file.read_text(encoding="utf-8")
    assert load_config(file, {}) == Config()


def test_sizes_that_follow_from_others() -> None:
    model = Config().model
    assert (model.encoder_depth, model.decoder_depth, model.readout_dim) == (1, 1, 256)
    changes = {"model.num_layers": "3", "model.decoder_layers": "1", "model.tie_embeddings": "true"}
    model = load_config(None, changes).model
    assert (model.encoder_depth, model.decoder_depth, model.readout_dim) == (3, 1, 128)
    assert load_config(None, {"model.readout_size": "64"}).model.readout_dim == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.tie_source": "true"}, "model.tie_source needs data.joint_vocabulary"),
        (
            {"model.tie_embeddings": "true", "model.readout_size": "256"},
            "model.tie_embeddings needs model.readout_size = model.embedding_dim, or null, but they are 256 and 128",
        ),
        ({"model.lexical": "true", "model.attention": "none"}, "model.lexical needs model.attention"),
        (
            {"model.tie_source": "true", "data.joint_vocabulary": "true", "data.source_vectors": "a.vec"}
            | {f"data.{side}_tokenizer": "words" for side in ("source", "target")},
            "with model.tie_source there is no source table to begin with data.source_vectors",
        ),
    ],
)
def test_what_does_not_go_together(changes: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_config(None, changes)
