import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dist_s2s.models.dropout import DropoutRates
from dist_s2s.models.encoder import Encoder

LENGTHS = torch.tensor([3, 7, 1, 5])


def embedded(seed: int = 1) -> Tensor:
    """[4, 7, 6], with numbers in the padding too, which nothing may depend on."""
    return torch.randn(4, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_encoder(num_layers: int, dropout: float = 0.0) -> Encoder:
    torch.manual_seed(0)
    return Encoder(embedding_dim=6, hidden_size=8, num_layers=num_layers, dropout=DropoutRates(dropout)).double()


def as_torch_lstm(encoder: Encoder) -> nn.LSTM:
    """nn.LSTM with the weights of a one-layer encoder."""
    reference = nn.LSTM(6, 4, batch_first=True, bidirectional=True).double()
    weights = dict(encoder.forward_layers[0].named_parameters())
    weights |= {f"{name}_reverse": value for name, value in encoder.backward_layers[0].named_parameters()}
    reference.load_state_dict(weights)
    return reference


def test_one_layer_is_torchs_bidirectional_lstm_on_packed_sequences() -> None:
    encoder = make_encoder(num_layers=1)
    packed = pack_padded_sequence(embedded(), LENGTHS, batch_first=True, enforce_sorted=False)
    output, (last, _) = as_torch_lstm(encoder)(packed)
    expected, _ = pad_packed_sequence(output, batch_first=True)
    memory, mask, summary, *_ = encoder(embedded(), LENGTHS)
    torch.testing.assert_close(memory * mask[:, :, None], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(summary, torch.cat((last[0], last[1]), dim=-1), rtol=0, atol=1e-12)


def test_mask_is_true_at_tokens() -> None:
    mask = make_encoder(num_layers=1)(embedded(), LENGTHS).mask_BS
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == LENGTHS.tolist()
    assert mask[0].tolist() == [True] * 3 + [False] * 4


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_padding_changes_nothing(num_layers: int) -> None:
    encoder = make_encoder(num_layers)
    together = encoder(embedded(), LENGTHS)
    noise = torch.where(together.mask_BS[:, :, None], embedded(), embedded(seed=2))
    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder(embedded()[row : row + 1, :length], LENGTHS[row : row + 1])
        for batch in (together, encoder(noise, LENGTHS)):
            torch.testing.assert_close(batch.memory_BSH[row, :length], alone.memory_BSH[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(batch.summary_BH[row], alone.summary_BH[0], rtol=0, atol=1e-12)


def test_second_layer_adds_to_the_first() -> None:
    encoder = make_encoder(num_layers=2)
    for layers in (encoder.forward_layers, encoder.backward_layers):
        for parameter in layers[1].parameters():
            nn.init.zeros_(parameter)  # then its output is zero
    first = Encoder(embedding_dim=6, hidden_size=8, num_layers=1, dropout=DropoutRates()).double()
    first.load_state_dict({key: value for key, value in encoder.state_dict().items() if "layers.0." in key})
    memory, _, summary, *_ = encoder(embedded(), LENGTHS)
    torch.testing.assert_close(memory, first(embedded(), LENGTHS).memory_BSH, rtol=0, atol=1e-12)
    assert summary.count_nonzero() == 0  # the top layer's own states


def test_dropout_is_for_training_only() -> None:
    encoder = make_encoder(num_layers=2, dropout=0.5)
    first, second = (encoder(embedded(), LENGTHS).memory_BSH for _ in range(2))
    assert not torch.equal(first, second)
    encoder.eval()
    first, second = (encoder(embedded(), LENGTHS).memory_BSH for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, make_encoder(num_layers=2)(embedded(), LENGTHS).memory_BSH)


def test_hidden_size_must_be_even() -> None:
    with pytest.raises(ValueError, match="hidden_size must be even for two directions, but is 7"):
        Encoder(embedding_dim=6, hidden_size=7, num_layers=1, dropout=DropoutRates())
