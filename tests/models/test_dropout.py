import pytest
import torch
from torch import Tensor

from dist_s2s.models.decoder import Decoder
from dist_s2s.models.dropout import Dropout, DropoutRates, EmbeddingInput
from dist_s2s.models.encoder import Encoder, Encoding

B, T, X = 40, 30, 50


def units(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full((B, T, X), 2.0, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_a_share_is_dropped_and_the_rest_is_scaled(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    dropped = Dropout(rate)(units(dtype))
    assert dropped.dtype == dtype
    kept = dropped != 0
    assert 1 - kept.double().mean().item() == pytest.approx(rate, abs=0.01)
    torch.testing.assert_close(dropped[kept], units(dtype)[kept] / (1 - rate), rtol=0.01, atol=0)
    # Units that share a random number fall independently of each other.
    pairs = kept.flatten().view(-1, 4).double()
    assert torch.corrcoef(pairs.t()).fill_diagonal_(0).abs().max() < 0.05


@pytest.mark.parametrize("rate", [1e-9, 0.9999999])
def test_rates_beyond_what_the_mask_can_tell_apart(rate: float) -> None:
    dropped = Dropout(rate)(units())
    assert dropped.isfinite().all()
    assert (dropped != 0).double().mean().item() == pytest.approx(1 - rate, abs=1e-3)


def test_the_seed_decides_and_no_seed_is_used_without_dropout() -> None:
    dropout = Dropout(0.5)
    for again in (dropout, Dropout(0.5)):
        torch.manual_seed(3)
        first, second = again(units()), again(units())
        assert not torch.equal(first, second)
        torch.manual_seed(3)
        assert torch.equal(again(units()), first)
    state = torch.get_rng_state()
    assert torch.equal(dropout.eval()(units()), units())
    assert torch.equal(Dropout(0.0)(units()), units())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_batch_keeps_its_shape() -> None:
    assert Dropout(0.5)(torch.empty(0, 3, 5)).shape == (0, 3, 5)


def test_variational_dropout_is_the_same_at_all_positions_of_a_sentence() -> None:
    torch.manual_seed(1)
    dropped = Dropout(0.5, variational=True)(units()) == 0
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])


def test_words_are_dropped_whole_each_position_by_itself() -> None:
    torch.manual_seed(1)
    dropped = EmbeddingInput(DropoutRates(hidden=0.9, embedding=0.0, words=0.25, variational=True))(units())
    gone_BT = (dropped == 0).all(dim=2)
    assert gone_BT.double().mean().item() == pytest.approx(0.25, abs=0.05)
    assert gone_BT.any(dim=0).all()  # not the same positions in all sentences
    torch.testing.assert_close(dropped[~gone_BT], torch.full((int((~gone_BT).sum()), X), 2 / 0.75))


def test_embeddings_take_the_rate_of_hidden_units_unless_they_have_one() -> None:
    torch.manual_seed(1)
    for rates, share in ((DropoutRates(0.5), 0.5), (DropoutRates(0.5, embedding=0.1), 0.1)):
        dropped = EmbeddingInput(rates)(units())
        assert (dropped == 0).double().mean().item() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("input_feeding", [False, True])
def test_variational_dropout_of_a_decoder(input_feeding: bool) -> None:
    torch.manual_seed(1)
    decoder = Decoder(6, 16, 2, DropoutRates(hidden=0.5, variational=True), "dot", input_feeding)
    encoding = Encoding(torch.randn(B, 4, 16), torch.ones(B, 4, dtype=torch.bool), torch.randn(B, 16))
    states, after = decoder(torch.randn(B, T, 6), decoder.initial_state(encoding), encoding)
    dropped = states == 0
    assert 0.4 < dropped.double().mean() < 0.6
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert torch.equal(after.attentional_BH, states[:, -1])


@pytest.mark.parametrize("input_feeding", [False, True])
def test_a_decoders_dropout_differs_between_positions(input_feeding: bool) -> None:
    torch.manual_seed(1)
    decoder = Decoder(6, 16, 1, DropoutRates(hidden=0.5), "dot", input_feeding)
    encoding = Encoding(torch.randn(B, 4, 16), torch.ones(B, 4, dtype=torch.bool), torch.randn(B, 16))
    dropped = decoder(torch.randn(B, T, 6), decoder.initial_state(encoding), encoding)[0] == 0
    assert not torch.equal(dropped[:, 0], dropped[:, 1])


def test_a_dropped_source_word_leaves_no_trace() -> None:
    encoder = Encoder(6, 8, 1, DropoutRates(words=0.5))
    embedded, lengths = torch.randn(B, T, 6), torch.full((B,), T)
    torch.manual_seed(2)
    memory = encoder(embedded, lengths).memory_BSH
    torch.manual_seed(2)
    gone = encoder.input(torch.ones(B, T, 6)) == 0
    torch.manual_seed(2)
    changed = encoder(torch.where(gone, embedded + 1, embedded), lengths).memory_BSH
    assert gone.any()
    assert torch.equal(memory, changed)
