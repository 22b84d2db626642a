"""Whether an exported model is the model: its logits, predictions, and what an attack does to it.

Adversarial images are made on the original and shown to both (transfer), since most formats have
no gradient; the two must then fail alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks import FGSM

Answering = Callable[[Tensor], Tensor]
"""Images ``(N, C, H, W)`` to logits ``(N, classes)``."""

BATCHES = (1, 2, 7, 64)  # sizes that every format must take; the last is that of all others
IMAGES = 256  # as many are asked about, where there are so many
TOLERANCE = 1e-4  # of a logit
RELATIVE = 1e-5  # of the largest logit, where that is more: float32 has 7 digits


@dataclass(frozen=True)
class Questions:
    """Images, what the original answers, and the same under attack.

    Attributes:
        images, adversarial: ``(N, C, H, W)`` in [0, 1].
        logits, attacked_logits: of both, by the original.
        labels: true ones, or those that the original predicts where no data are there.
        whence: what the images are, for a person.
        epsilon: of the attack, FGSM in L infinity.
    """

    images: Tensor
    adversarial: Tensor
    logits: Tensor
    attacked_logits: Tensor
    labels: Tensor
    whence: str
    epsilon: float


@dataclass(frozen=True)
class Agreement:
    """How an exported model answered beside the original.

    Attributes:
        images: asked about, clean and attacked each.
        difference: largest of a logit.
        tolerance: what it may be.
        clean, attacked: images of different predictions, near-ties (two classes nearer than twice
            the tolerance) left out.
        near_ties: how many those are, of clean and attacked images.
        accuracies: under attack, of the original and of the exported model.
    """

    images: int
    difference: float
    tolerance: float
    clean: int
    attacked: int
    near_ties: int
    accuracies: tuple[float, float]

    @property
    def problem(self) -> str:
        """What is wrong, "" where nothing is."""
        if not self.difference <= self.tolerance:  # NaN too
            return f"a logit differs by {self.difference:.3g} (at most {self.tolerance:.3g})"
        if self.clean or self.attacked:
            return (
                f"{self.clean} clean and {self.attacked} attacked images of {self.images} are "
                "predicted otherwise"
            )
        return ""


def ask(
    model: nn.Module, images: Tensor, labels: Tensor | None, epsilon: float, whence: str
) -> Questions:
    """Return the questions that images make.

    Args:
        model: the original, in ``eval()``.
        images: ``(N, C, H, W)`` in [0, 1]; few are repeated, so that every batch size is asked.
        labels: None takes what the model predicts.
        epsilon: of FGSM, L infinity.
        whence: what the images are.
    """
    images = images[:IMAGES]
    enough = -(-sum(BATCHES) // len(images))
    images = images.repeat(enough, 1, 1, 1) if enough > 1 else images
    logits = answers(model, images)
    if labels is None:
        labels = logits.argmax(1)
    else:
        labels = labels[:IMAGES].repeat(enough) if enough > 1 else labels[:IMAGES]
    adversarial = FGSM(epsilon=epsilon)(model, images, labels, batch_size=BATCHES[-1])
    attacked = answers(model, adversarial)
    return Questions(images, adversarial, logits, attacked, labels, whence, epsilon)


def answers(model: Answering, images: Tensor) -> Tensor:
    """Return logits, asked for in batches of every size."""
    with torch.no_grad():
        return torch.cat([model(batch) for batch in images.split(_sizes(len(images)))])


def agreement(model: Answering, questions: Questions) -> Agreement:
    """Ask an exported model.

    Raises:
        ValueError: answers of another shape.
    """
    clean, attacked = (answers(model, x) for x in (questions.images, questions.adversarial))
    for got, known in ((clean, questions.logits), (attacked, questions.attacked_logits)):
        if got.shape != known.shape:
            raise ValueError(f"expected logits {tuple(known.shape)}, got {tuple(got.shape)}")
    both = torch.cat([questions.logits, questions.attacked_logits])
    tolerance = max(TOLERANCE, RELATIVE * both.abs().max().item())
    differences = torch.cat([clean, attacked]) - both
    n = len(clean)
    close = _margin(both) <= 2 * tolerance
    other = (torch.cat([clean, attacked]).argmax(1) != both.argmax(1)) & ~close
    labels = questions.labels
    accuracies = [(x.argmax(1) == labels).double().mean().item() for x in
                  (questions.attacked_logits, attacked)]  # fmt: skip
    return Agreement(
        images=n,
        difference=differences.abs().max().item(),
        tolerance=tolerance,
        clean=int(other[:n].sum()),
        attacked=int(other[n:].sum()),
        near_ties=int(close.sum()),
        accuracies=(accuracies[0], accuracies[1]),
    )


def _margin(logits: Tensor) -> Tensor:
    """Return by how much the first class leads the second; of a single class without end."""
    if logits.shape[1] < 2:
        return torch.full((len(logits),), torch.inf)
    first, second = logits.topk(2, dim=1).values.T
    margin: Tensor = first - second
    return margin


def _sizes(n: int) -> Sequence[int]:
    sizes, left = list(BATCHES), n - sum(BATCHES)
    sizes += [BATCHES[-1]] * (left // BATCHES[-1])
    return sizes + ([left % BATCHES[-1]] if left % BATCHES[-1] else [])
