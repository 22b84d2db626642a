"""What a training left: the weights of the best epoch and of the last, plain and averaged."""

from __future__ import annotations

from dataclasses import dataclass

from nas.trial.state import Epoch, TrainingState, Weights, copied_weights, untrained


@dataclass(frozen=True)
class Kept:
    """The best and the last of plain weights alone, or of averaged ones alone.

    ``best`` is the best epoch by these weights.
    """

    best: Epoch
    best_weights: Weights
    last_weights: Weights


@dataclass(frozen=True)
class Training:
    """What training left: the model holds the best epoch's weights.

    Of no epochs, ``best`` and ``last`` are the untrained model, as epoch 0; it has no loss, and is
    not judged.

    Attributes:
        epochs: reports of all.
        best: the best epoch, by the better of its plain and its averaged weights.
        last: the last epoch.
        last_weights: the last epoch's better ones.
        best_is_average, last_is_average: whether the weights of ``best`` and of ``last`` are
            averaged ones. Where no images judge, averaged ones are kept if there are any.
        plain, average: the best and the last of either; None where no weights are averaged.
        capture: whether steps were replayed: ``off``, ``on`` or ``refused (why)``.
        attack_precision: :attr:`nas.trial.adversary.Adversary.precision`; empty without an attack.
    """

    epochs: tuple[Epoch, ...]
    best: Epoch
    last: Epoch
    last_weights: Weights
    best_is_average: bool = False
    last_is_average: bool = False
    plain: Kept | None = None
    average: Kept | None = None
    capture: str = "off"
    attack_precision: str = ""


def ended(state: TrainingState, *, judged: bool) -> Training:
    """Return what a training left, and give the model the best weights."""
    model, last_weights = state.model, copied_weights(state.model)
    if state.best is None:
        return Training((), untrained(), untrained(), last_weights)
    epochs, last = tuple(state.epochs), state.epochs[-1]
    average, best_average = state.average, state.best_average
    if average is None or best_average is None:
        model.load_state_dict(state.best_weights)
        return Training(epochs, state.best, last, last_weights)
    plain = Kept(state.best, state.best_weights, last_weights)
    averaged = Kept(best_average, average.best_weights, average.weights())
    order = (best_average.average_rank, -best_average.epoch), (plain.best.rank, -plain.best.epoch)
    best_is_average = not judged or order[0] > order[1]
    last_is_average = not judged or last.average_is_better
    of_best, of_last = (averaged if a else plain for a in (best_is_average, last_is_average))
    model.load_state_dict(of_best.best_weights)
    return Training(
        epochs,
        of_best.best,
        last,
        of_last.last_weights,
        best_is_average,
        last_is_average,
        plain,
        averaged,
    )
