"""Words of the source that help to choose those of the target, past the recurrent layers."""

import torch
from torch import Tensor, nn

from dist_s2s.models.dropout import drop

# Shapes: B sentences, T target positions, E embedding_dim, R readout_size.


class LexicalModel(nn.Module):
    """Nguyen and Chiang 2018 (arXiv:1710.01329): what the source words that attention looks at say of the output.

    With f = tanh(average of embeddings), tanh(Wf) + f is what they give to the output layer. In the paper it has an
    output matrix of its own, [V, E]; here Linear(E, R) adds it to the readout, so that the largest product of a step
    stays as it is.
    """

    def __init__(self, embedding_dim: int, readout_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(embedding_dim, embedding_dim)
        self.readout = nn.Linear(embedding_dim, readout_size, bias=False)

    def forward(self, words_BTE: Tensor, mask_BTE: Tensor | None) -> Tensor:
        """Return what is added to attentional states, [B, T, R].

        words_BTE: embeddings of source tokens, averaged by attention.
        mask_BTE: what dropout leaves.
        """
        words_BTE = torch.tanh(words_BTE)
        added_BTR: Tensor = self.readout(drop(torch.tanh(self.hidden(words_BTE)) + words_BTE, mask_BTE))
        return added_BTR
