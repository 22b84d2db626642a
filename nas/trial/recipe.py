"""How a model is trained, as a value: optimiser, schedule, adversary, entropy weight."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from metrics.attacks import ATTACKS, PGD, Attack, DivergencePGD, Noise
from metrics.stability.input_noise import INPUT_NOISE, InputNoise
from nas.names import find
from nas.seeds import value_hash
from nas.trial.recipe_checks import EPSILON, PAIRED, check_recipe


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Args:
        epochs: passes over the training images; 0 leaves the initial weights.
        batch_size: images a step, adversarial ones included.
        optimizer: ``sgd`` (Nesterov momentum), ``adam`` or ``adamw``.
        learning_rate: the largest of the schedule.
        schedule: ``one-cycle`` (linear up over a quarter, linear down), ``cosine``, ``step``
            (a tenth after each of ``milestones``; elsewhere called piecewise), ``halving`` (half
            after every fifth, as of 100 epochs in Sutton et al. 2023 after 20) or ``constant``.
        momentum: of ``sgd``.
        weight_decay: L2 penalty; decoupled for ``adamw``.
        loss: ``cross-entropy``; ``mse``: the squared error of the probabilities, mean over
            classes, which for two of them is that of a sigmoid (Sutton et al. 2023); ``trades``:
            CE(f(x), y) + β KL(p(x) || p(x')) (Zhang et al. 2019); ``mart``: BCE(p(x'), y) +
            β KL(p(x) || p(x')) (1 - p_y(x)) (Wang et al. 2020).
        label_smoothing: share of the label spread over all classes, in cross entropies: of
            ``trades`` that of clean images, of ``mart`` the one in its BCE.
        adversary: ``none``, a name in ``ATTACKS``, random noise that is not clipped
            (``noise-cube``, ``noise-ball``: :mod:`metrics.stability.input_noise`), or
            ``pkg.module:Attack``. One that would leak the true labels into its images (``fgsm``,
            ``step-ll``) is given predicted ones. With the loss ``trades``, ``pgd`` in any norm
            climbs the divergence that the loss has, from x + 0.001 N(0, 1); noise, and an attack of
            one's own that is no PGD, stay what they are.
        epsilon: radius of the adversary, pixels in [0, 1]; an adversary in L2 has to be given one.
        steps: of an adversary that has steps, and of the PGD that judges epochs.
        step_size: the same; None is epsilon / 4.
        adversarial_share: share of each minibatch that is attacked; None is 1 for ``trades`` and
            ``mart``, as published, and 0.5 for the others. The rest counts its cross entropy.
        entropy_weight: λ in loss + λ H(p).
        gradient_clip: largest norm of the gradient; None does not clip.
        flip: mirror images at random.
        crop_padding: pad by so many pixels and crop at random; 0 does not.
        precision: of the model in training: ``float32``, ``bf16`` (autocast; refused on a GPU that
            only emulates it) or ``auto``: bf16 on a GPU that computes it natively. Epochs are
            judged, and trials scored, in float32.
        selection_images: validation images that judge an epoch; of 0 none is judged, and the last
            epoch's weights are kept.
        beta: weight of the robust part of ``trades`` (Zhang et al. 2019, 1/λ there) and ``mart``
            (Wang et al. 2020, λ there).
        weight_average: decay a step of an exponential average of the weights, such as 0.995
            (Gowal et al. 2020) or 0.999 (Rebuffi et al. 2021), less in the first steps; judged
            beside the plain weights, and the better of both kept
            (:mod:`nas.trial.averaging`). None keeps none.
        awp: size of the adversarial weight perturbation, as a share of each weight's norm (γ of Wu
            et al. 2020, 0.01 for cross entropy and 0.005 for ``trades`` there); 0 does not perturb.
        awp_warmup: epochs before the first perturbed one.
        cutout: side in pixels of a square that is blackened in every image, about a centre of its
            own and cut at the borders (DeVries & Taylor 2017); 0 does not.
        milestones: of ``step``: parts of the training, in (0, 1) and increasing, after each of
            which the rate falls to a tenth.
        warmup_epochs: epochs, also parts of one, over which the rate climbs linearly from 0 (Goyal
            et al. 2017); of any schedule but ``one-cycle``, which climbs anyway. ``cosine`` falls
            over the rest of the training; others change where they would without it.
        accumulate: minibatches whose gradients are averaged for one step, each image counting the
            same; an epoch's last step takes those that are left. Schedules count steps.
        patience: epochs without a better one, as judged on ``selection_images``, after which
            training ends (robust overfitting: Rice et al. 2020); None: never.
        attack_precision: ``float32`` or ``bf16``, of the training attack alone; ``auto`` is bf16
            where the model trains in it, and on a CPU with fast bf16 for nets of enough arithmetic
            (:mod:`nas.trial.precision`). Weights, judging and metrics do not follow it.
        early_steps: attack steps in the first epoch, from which they rise to ``steps`` in the last
            (Wang et al. 2019, arXiv 2112.08304, make attacks stronger as training goes on).
        carry_perturbations: attacks begin where those of the epoch before ended (Zheng et al. 2020,
            arXiv 1912.11969), for ``pgd`` on images that are not moved about.

    Raises:
        ValueError: a value out of range or an unknown name.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    first_fields: ClassVar[tuple[str, ...]] = (  # see nas.seeds
        "epochs", "batch_size", "optimizer", "learning_rate", "schedule", "momentum",
        "weight_decay", "label_smoothing", "adversary", "epsilon", "steps", "step_size",
        "adversarial_share", "entropy_weight", "gradient_clip", "flip", "crop_padding",
        "precision", "selection_images",
    )  # fmt: skip
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "one-cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    loss: str = "cross-entropy"
    label_smoothing: float = 0.0
    adversary: str = "pgd"
    epsilon: float = EPSILON
    steps: int = 7
    step_size: float | None = None
    adversarial_share: float | None = None
    entropy_weight: float = 0.0
    gradient_clip: float | None = None
    flip: bool = False
    crop_padding: int = 0
    precision: str = "auto"
    selection_images: int = 500
    beta: float = 6.0
    weight_average: float | None = None
    awp: float = 0.0
    awp_warmup: int = 0
    cutout: int = 0
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup_epochs: float = 0.0
    accumulate: int = 1
    patience: int | None = None
    attack_precision: str = "auto"
    early_steps: int | None = None
    carry_perturbations: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):  # 1 and 1.0 are one recipe, with one hash
            value = getattr(self, setting.name)
            if str(setting.type).startswith("float") and type(value) is int:
                object.__setattr__(self, setting.name, float(value))
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a list in YAML and JSON
        check_recipe(self)

    @property
    def hash(self) -> str:
        """16 hex digits over every field, of which later ones count where they are not default.

        A share that is left to the loss counts as what it comes to.
        """
        return value_hash(replace(self, adversarial_share=self.attacked_share))

    @property
    def attacked_share(self) -> float:
        """The share of each minibatch that is attacked: as asked for, or the loss's own."""
        if self.adversarial_share is None:
            return 1.0 if self.loss in PAIRED else 0.5
        return self.adversarial_share

    def perturbs(self, epoch: int) -> bool:
        """Whether weights are perturbed in an epoch, of which the first is 1."""
        return self.awp > 0 and epoch > self.awp_warmup

    def attack(self) -> Attack | None:
        """Return the attack that training images are made with; None trains on clean ones.

        Raises:
            ValueError: an unknown adversary, or one that climbs another loss than ``trades``.
        """
        if self.adversary == "none":
            return None
        known = {"none": None, **ATTACKS, **INPUT_NOISE}
        kind: Any = find(self.adversary, known, "adversary")
        if not (isinstance(kind, type) and issubclass(kind, Attack)):
            raise ValueError(f"adversary: expected a subclass of Attack, got {kind!r}")
        shared = {f.name for f in fields(kind)} & {"epsilon", "steps", "step_size"}
        attack: Attack = kind(**{name: getattr(self, name) for name in shared})
        return attack if self.loss != "trades" else self._of_trades(attack)

    def _of_trades(self, attack: Attack) -> Attack:
        """Return what makes the images of TRADES, where ``attack`` is the adversary by its name."""
        if isinstance(attack, PGD):
            return DivergencePGD(
                epsilon=self.epsilon, step_size=self.step_size, steps=self.steps, norm=attack.norm
            )
        if self.adversary in ATTACKS and not isinstance(attack, Noise | InputNoise):
            raise ValueError(
                "adversary: expected pgd, noise, noise-cube, noise-ball or one of your own for the "
                f"loss trades, got {self.adversary}, which climbs another loss"
            )
        return attack

    @property
    def norm(self) -> str:
        """The norm that epsilon is measured in: ``linf`` or ``l2``."""
        attack = self.attack()
        return "linf" if attack is None else attack.distance

    def judge(self) -> PGD:
        """Return the attack that decides the best epoch: PGD in the adversary's norm.

        It is PGD even for a single-step adversary, whose own accuracy stays high when training
        collapses onto that one step. Of an epsilon at which no net is right it says nothing: then
        ``selection_images: 0`` keeps the last epoch.
        """
        return PGD(epsilon=self.epsilon, step_size=self.step_size, steps=self.steps, norm=self.norm)
