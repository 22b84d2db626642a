"""The loss of a minibatch, of which the first images are attacked: what training minimises.

Cross entropy and ``mse`` take each adversarial image instead of its clean one, and all images go
through the model in one batch. ``trades`` (Zhang et al. 2019, arXiv 1901.08573) and ``mart`` (Wang
et al. 2020, ICLR) take both, which go through it in two batches, the clean one first: so the
authors' programs do, and batch norm then normalises the adversarial images by statistics of their
own. (That of TRADES runs the clean batch once more, for the same logits.) Gradients go through both
predictions of a divergence, as theirs do.

Images that are not attacked count their cross entropy, and the loss is the mean over images.
Label smoothing goes to cross entropies alone: that of TRADES' clean images, and -log p_y(x') of
MART. The entropy of ``entropy_weight`` is that of the predictions whose cross entropy is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from metrics.attacks.losses import divergence
from nas.trial.recipe import Recipe
from nas.trial.recipe_checks import PAIRED


def passes(x: Tensor, adversarial: Tensor, recipe: Recipe) -> tuple[Tensor, ...]:
    """Return the batches that go through the model one after another.

    Args:
        x: ``(N, C, H, W)``, clean.
        adversarial: ``(n, C, H, W)``, of the first n of them; n may be 0.
        recipe: has the loss.
    """
    if not len(adversarial):
        return (x,)
    if recipe.loss not in PAIRED:
        return (torch.cat([adversarial, x[len(adversarial) :]]),)
    if len(adversarial) == 1:  # of one image batch norm has no variance
        return (torch.cat([x, adversarial]),)
    return x, adversarial


def mean_loss(logits: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    """Return the loss, a mean over images.

    Args:
        logits: of :func:`passes`, one after another: ``(N, classes)``, or ``(N + n, classes)``.
        y: ``(N,)`` labels.
        recipe: has the loss and its weights.
    """
    clean, adversarial = logits[: len(y)], logits[len(y) :]
    loss, answers = _loss(clean, adversarial, y, recipe)
    if recipe.entropy_weight:
        log_p = answers.log_softmax(dim=1)
        loss = loss - recipe.entropy_weight * (log_p.exp() * log_p).sum(dim=1).mean()
    return loss


def trades(
    clean: Tensor, adversarial: Tensor, y: Tensor, *, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Return ``(N,)``: CE(f(x), y) + β KL(p(x) || p(x')), Zhang et al. 2019, β = 1/λ there."""
    own = functional.cross_entropy(clean, y, reduction="none", label_smoothing=label_smoothing)
    return own + beta * divergence(clean, adversarial)


def mart(
    clean: Tensor, adversarial: Tensor, y: Tensor, *, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """Return ``(N,)``: BCE(p(x'), y) + β KL(p(x) || p(x')) (1 - p_y(x)), Wang et al. 2020.

    BCE(p, y) = -log p_y - log(1 - max over k != y of p_k), its second part without the authors'
    1e-4 under the logarithm: 1 - p_k is the sum of the others.
    """
    own = functional.cross_entropy(
        adversarial, y, reduction="none", label_smoothing=label_smoothing
    )
    largest = adversarial.scatter(1, y[:, None], -torch.inf).argmax(dim=1)
    unsure = _log_of_others(clean, y).exp()
    return (
        own - _log_of_others(adversarial, largest) + beta * divergence(clean, adversarial) * unsure
    )


def _loss(clean: Tensor, adversarial: Tensor, y: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the loss without the entropy, and the logits whose entropy is meant."""
    smoothing = recipe.label_smoothing
    if recipe.loss == "mse":
        wanted = functional.one_hot(y, clean.shape[1])
        return (clean.softmax(dim=1) - wanted).square().mean(), clean
    attacked = len(adversarial)
    if not attacked:
        return functional.cross_entropy(clean, y, label_smoothing=smoothing), clean
    formula = PAIRED_LOSSES[recipe.loss]
    own = formula(
        clean[:attacked], adversarial, y[:attacked], beta=recipe.beta, label_smoothing=smoothing
    )
    rest = functional.cross_entropy(
        clean[attacked:], y[attacked:], reduction="sum", label_smoothing=smoothing
    )
    answers = clean
    if recipe.loss == "mart":
        answers = torch.cat([adversarial, clean[attacked:]])
    return (own.sum() + rest) / len(y), answers


def _log_of_others(logits: Tensor, k: Tensor) -> Tensor:
    """Return ``(N,)``: log(1 - p_k), exact where p_k is nearly 1."""
    others = logits.scatter(1, k[:, None], -torch.inf)
    return others.logsumexp(dim=1) - logits.logsumexp(dim=1)


PAIRED_LOSSES = {"trades": trades, "mart": mart}
