"""The controller's network: an LSTM that answers one decision after another.

Zoph and Le 2017, Zoph et al. 2018: one layer, a softmax for each decision, and the choice just made
as the next input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

INITIAL_RANGE = 0.1
NO_CHOICE = -1e9  # logit of a choice that a decision does not have


class Policy:
    """A distribution over the answers to ``D`` decisions, each given those before it.

    Args:
        sizes: ``D`` long, how many choices each decision has; K is the largest.
        hidden_units: of the LSTM, and of the embedding of a choice.
        generator: draws the initial weights, uniform in [-0.1, 0.1].
    """

    def __init__(self, sizes: Sequence[int], hidden_units: int, generator: torch.Generator) -> None:
        widest = max(sizes)
        # By way of "meta": nn.LSTM draws its first weights from torch's global generator.
        self._lstm = nn.LSTM(hidden_units, hidden_units, device="meta").to_empty(device="cpu")
        self._embedding = torch.empty(1 + len(sizes) * widest, hidden_units, requires_grad=True)
        self._heads = torch.empty(len(sizes), hidden_units, widest, requires_grad=True)
        self._biases = torch.empty(len(sizes), 1, widest, requires_grad=True)
        self.parameters: list[Tensor] = [
            *self._lstm.parameters(),
            self._embedding,
            self._heads,
            self._biases,
        ]
        with torch.no_grad():
            for parameter in self.parameters:
                parameter.uniform_(-INITIAL_RANGE, INITIAL_RANGE, generator=generator)
        self._rows = 1 + widest * torch.arange(len(sizes))  # of the embedding; row 0 begins
        missing = torch.arange(widest) >= torch.tensor(sizes)[:, None, None]
        self._mask = torch.zeros(missing.shape).masked_fill(missing, NO_CHOICE)

    def log_probabilities(self, codes: Tensor) -> Tensor:
        """Return log p of every choice, given the choices made before it.

        Args:
            codes: ``(N, D)`` int64, choices by index.

        Returns:
            ``(N, D, K)``; a choice that a decision does not have gets about -1e9.
        """
        before = nn.functional.pad((codes + self._rows)[:, :-1], (1, 0))
        hidden, _ = self._lstm(nn.functional.embedding(before.T, self._embedding))
        logits = torch.baddbmm(self._biases + self._mask, hidden, self._heads)
        return torch.log_softmax(logits, dim=-1).transpose(0, 1)

    def sample(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return one answer to every decision, ``(D,)``, choices by index.

        In numpy: one sequence is a row of very small products, where torch takes longer to start
        one than to compute it.
        """
        input_weights, state_weights, input_bias, state_bias, embedding, heads, biases = (
            parameter.detach().numpy() for parameter in self.parameters
        )
        offsets = biases + self._mask.numpy()
        hidden = memory = np.zeros_like(embedding[0])
        codes = np.zeros(len(heads), dtype=np.int64)
        row = 0
        for step, draw in enumerate(rng.random(len(heads))):
            gates = input_weights @ embedding[row] + input_bias + state_weights @ hidden
            enter, keep, new, show = (gates + state_bias).reshape(4, -1)  # torch's order
            memory = _sigmoid(keep) * memory + _sigmoid(enter) * np.tanh(new)
            hidden = _sigmoid(show) * np.tanh(memory)
            logits = (hidden @ heads[step] + offsets[step, 0]).astype(np.float64)
            edges = np.exp(logits - logits.max()).cumsum()
            codes[step] = np.searchsorted(edges, draw * edges[-1], side="right")
            row = int(self._rows[step]) + int(codes[step])
        return codes


def of_answers(log_p: Tensor, codes: Tensor) -> Tensor:
    """Return ``(N, D)``: of ``(N, D, K)`` the entries of the choices ``codes``, ``(N, D)``."""
    return log_p.gather(2, codes[..., None]).squeeze(2)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    halved: NDArray[np.float32] = np.tanh(0.5 * x)  # exp(-x) would overflow
    return 0.5 + 0.5 * halved
