"""The losses that attacks climb, one number an image."""

from __future__ import annotations

from torch import Tensor

from metrics.answers import margin


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio ``(N,)``: -(z_y - max other) / (z_1st - z_3rd).

    Raises:
        ValueError: fewer than 3 classes.
    """
    _check_classes(logits, 3)
    ordered = logits.sort(dim=1, descending=True).values
    return -margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``(N,)``: -(z_1st - z_t) / (z_1st - (z_3rd + z_4th) / 2).

    The paper has z_y where this has the largest logit: the two are one until the image is broken.

    Raises:
        ValueError: fewer than 4 classes.
    """
    _check_classes(logits, 4)
    ordered = logits.sort(dim=1, descending=True).values
    target = logits.gather(1, targets[:, None]).squeeze(1)
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12
    return -(ordered[:, 0] - target) / scale


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """Return ``(N,)``: KL(p || q) in nats, p the softmax of ``logits`` and q that of ``others``."""
    log_p, log_q = logits.log_softmax(dim=1), others.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _check_classes(logits: Tensor, least: int) -> None:
    if logits.shape[1] < least:
        raise ValueError(
            f"loss dlr: expected at least {least} classes, got {logits.shape[1]}; "
            "use loss ce, or train against another adversary"
        )
