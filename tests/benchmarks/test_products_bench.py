"""benchmarks/products_bench.py: the operations of a model, and what the benchmark makes of its measurements."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import products_bench
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import WhitespaceTokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.translation.translator import Translator

ALONE = Ranks.alone()


def translator(**model: object) -> Translator:
    side = TextSide(WhitespaceTokenizer(), Vocabulary([*SPECIALS, *(f"w{number}" for number in range(20))]))
    sizes = {"embedding_dim": 6, "hidden_size": 10, "dropout": 0.0, "output": "replicated", "attention": "none"}
    return Translator(Config.model_validate({"model": {**sizes, **model}}), side, side, ALONE)


@pytest.mark.parametrize("changes", [{}, {"encoder_layers": 2, "decoder_layers": 3}, {"readout_size": 4}])
def test_operations_are_those_that_torch_counts(changes: dict[str, object]) -> None:
    """Forward alone, of one token of each side, by loops instead of fused layers, which torch does not count."""
    found = products_bench.operations_per_token(translator(**changes), source_tokens=1.0)
    model = translator(**changes).core
    encoder, decoder = model.encoder, model.decoder
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for lstm in (*encoder.forward_layers, *encoder.backward_layers, *decoder.layers):
            assert isinstance(lstm, nn.LSTM)
            zero = torch.zeros(1, lstm.hidden_size)
            for weight, given in ((lstm.weight_ih_l0, torch.zeros(1, lstm.input_size)), (lstm.weight_hh_l0, zero)):
                torch.mm(given, weight.t())
        states = decoder.combine(torch.zeros(1, decoder.combine.in_features))
        model.output(states)
    assert found == 3 * counter.get_total_flops()


def test_share_is_that_of_the_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = {"multiplied": [1e9, 3e9], "tokens_per_second": 500.0}
    monkeypatch.setattr(products_bench, "measure", lambda *_: turn)
    monkeypatch.setattr(products_bench, "load_translator", lambda *_: translator())
    monkeypatch.setattr(products_bench, "operations_per_token", lambda *_: 2e6)
    monkeypatch.setattr(products_bench, "source_tokens_per_target_token", lambda _: 1.0)
    (tmp_path / "some.yaml").touch()
    assert products_bench.main(["--config", str(tmp_path / "some.yaml"), "--turns", "2"]) == 0
    assert "50.0%" in capsys.readouterr().out


def test_all_ranks_multiply_at_once() -> None:
    options = products_bench._parse(["--config", __file__, "--size", "32", "--ranks", "2"])
    assert products_bench.multiplied(options) > 0
