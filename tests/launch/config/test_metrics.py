"""Metrics and attacks in a configuration: one metric for any attack, with all of its settings."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from launch.config.config import parse_config
from launch.config.metrics import without_epsilon
from metrics import APGD, ATTACKS, FGSM, METRICS, PGD, Attack
from metrics.robustness.scores import AttackAccuracy, CascadeAccuracy
from nas.errors import InputError
from nas.trial.scoring import metric_key

# what rows of ledgers drew from before one metric took any attack: computed then
KEYS = [
    ("fgsm", {}, "FGSMAccuracy-27b9e2288e91e258"),
    ("fgsm", {"norm": "l2", "epsilon": 0.5}, "FGSMAccuracy-be7b7f2429d17085"),
    ("step-ll", {"epsilon": 0.1}, "StepLLAccuracy-21c43bf9f6140f13"),
    ("pgd", {"steps": 20, "limit": 50}, "PGDAccuracy-f7adc399d8f12016"),
    ("pgd", {"target": "runner-up", "restarts": 2}, "PGDAccuracy-473550f246202761"),
    ("apgd", {"steps": 50, "loss": "dlr"}, "APGDAccuracy-8c6dbced6ec34137"),
    ("square", {"queries": 50}, "SquareAccuracy-f81ea3b5dfe5e87d"),
    ("noise", {}, "NoiseAccuracy-974c8b33725c3e3c"),
    ("noise", {"region": "ball", "draws": 3, "epsilon": 8 / 255}, "NoiseAccuracy-855a54e97ab40300"),
    ("cascade", {"epsilon": 0.1, "pgd_steps": 4, "apgd_steps": 5, "limit": 20},
     "CascadeAccuracy-56028029558dc024"),
    ("cascade", {}, "CascadeAccuracy-95c11b65778a84e9"),
    ("suspicion", {}, "Suspicion-76e294fb0b99425b"),
    ("psi", {}, "PsiRatio-89711a2ebca5382c"),
    ("psi-init", {"limit": 8}, "PsiInit-fb425b64c2b477df"),
    ("clean", {}, "CleanAccuracy-19dcb0169a0f233c"),
    ("cost", {}, "Cost-19dcb0169a0f233c"),
    ("min-fgsm", {}, "MinimalFGSM-261d80a431867015"),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Darker(Attack):
    """Somebody's own attack: every pixel minus epsilon."""

    def perturb(self, model, x, labels, generator):
        return (x - self.epsilon).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Short(Darker):
    """The same with a radius in L2."""

    @property
    def distance(self):
        return "l2"


def built(*metrics, epsilon=8 / 255, **recipe):
    recipe = {"epsilon": epsilon, **recipe}
    document = {"metrics": list(metrics), "recipe": recipe, "objectives": {"train_seconds": "min"}}
    return parse_config(document).built_metrics()


@pytest.mark.parametrize(("name", "settings", "key"), KEYS)
def test_what_earlier_rows_drew_from_is_drawn_from_again(name, settings, key):
    (metric,) = built({"name": name, **settings, "as": "mine"})
    assert metric_key(metric) == key


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_a_metric_with_all_of_its_settings(name):
    made = METRICS[name](limit=5, label="mine")
    entry = {**made.settings(), "name": name, "as": "mine"}
    assert built(entry) == (made,)
    assert made.score_names[0] == "mine_accuracy"
    assert METRICS[name]().score_names[0] == f"{name.replace('-', '_')}_accuracy"


def test_settings_that_a_metric_now_has_are_in_its_key():
    plain, targeted, share = built(
        "apgd",
        {"name": "apgd", "target": "runner-up", "as": "b"},
        {"name": "square", "share": 0.5},
    )
    keys = {metric_key(m) for m in (plain, targeted, share, *built("square"))}
    assert len(keys) == 4


def test_a_cascade_takes_any_attacks():
    own = f"{__name__}:Darker"
    attacks = ["fgsm", {"name": "pgd", "steps": 3, "epsilon": 0.2}]
    (metric,) = built({"name": "cascade", "attacks": attacks, "epsilon": 0.1})
    assert metric == CascadeAccuracy(attacks=(FGSM(epsilon=0.1), PGD(epsilon=0.2, steps=3)))
    assert built(METRIC := {"name": "cascade", **metric.settings()}) == (metric,), METRIC
    (usual,) = built("cascade", epsilon=0.1)
    expected = (FGSM(epsilon=0.1), PGD(epsilon=0.1, steps=20), APGD(epsilon=0.1, steps=100))
    assert usual.attacks == expected
    assert metric_key(usual) != metric_key(metric)
    assert own.endswith(":Darker")


def test_somebodys_own_attack_is_a_metric(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "darker", sys.modules[Darker.__module__])
    (metric,) = built({"name": "darker:Darker", "epsilon": 0.25, "limit": 7})
    assert metric == AttackAccuracy(attack=Darker(epsilon=0.25), limit=7)
    assert metric.score_names[0] == "darker_accuracy"


IN_L2 = [
    {"name": "pgd", "norm": "l2"},
    {"name": "apgd", "norm": "l2"},
    {"name": "fgsm", "norm": "l2"},
    {"name": "noise", "region": "ball"},
    {"name": "noise", "region": "sphere"},
    {"name": "shortened:Short"},
]


@pytest.mark.parametrize("entry", IN_L2, ids=lambda entry: "-".join(entry.values()))
def test_an_attack_in_l2_is_given_its_own_epsilon(entry, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "shortened", sys.modules[Short.__module__])
    name, wanted = entry["name"], "an epsilon of its own for norm l2 (such as 0.5), got none"
    for place, metric in (
        (f"metrics.{name}", entry),
        (f"metrics.cascade.attacks.{name}", {"name": "cascade", "attacks": ["fgsm", entry]}),
        (
            f"metrics.cascade.attacks.{name}",
            {"name": "cascade", "epsilon": 0.5, "attacks": [entry]},
        ),
    ):
        with pytest.raises(InputError) as caught:
            built(metric)
        assert str(caught.value) == f"{place}: expected {wanted}"
    own = {**entry, "epsilon": 0.5}
    alone, several = built(own, {"name": "cascade", "attacks": ["fgsm", own]}, epsilon=0.1)
    assert (alone.attack.distance, alone.attack.epsilon) == ("l2", 0.5)
    assert [attack.epsilon for attack in several.attacks] == [0.1, 0.5]
    if name in METRICS:
        with pytest.raises(ValueError, match="epsilon of its own for norm l2"):
            METRICS[name](**{key: value for key, value in entry.items() if key != "name"})


def test_a_bracket_in_l2_is_given_its_own_epsilon():
    with pytest.raises(InputError) as caught:
        built({"name": "bracket", "norm": "l2"}, epsilon=0.1)
    wanted = "expected an epsilon of its own for norm l2 (such as 0.5), got none"
    assert str(caught.value) == f"metrics.bracket: {wanted}"
    with pytest.raises(ValueError, match="epsilon of its own for norm l2"):
        METRICS["bracket"](norm="l2")
    apart = {"name": "bracket", "norm": "l2", "epsilon": 0.5, "as": "ball"}
    filled, own = built("bracket", apart, epsilon=0.1)
    assert (filled.epsilon, own.epsilon) == (0.1, 0.5)
    assert without_epsilon({"name": "bracket", "norm": "l2", "epsilon": 0.5})["epsilon"] == 0.5
    assert without_epsilon({"name": "bracket", "epsilon": 0.1}) == {"name": "bracket"}


def test_no_metric_takes_the_radius_of_an_adversary_in_l2(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "shortened", sys.modules[Short.__module__])
    recipe = {"adversary": "shortened:Short", "epsilon": 0.5}
    for metric in ("pgd", "suspicion", {"name": "pgd", "norm": "l2"}):
        with pytest.raises(
            InputError, match="^metrics.(pgd|suspicion): expected an epsilon of its own"
        ):
            built(metric, **recipe)
    pgd, flags = built(*({"name": name, "epsilon": 0.1} for name in ("pgd", "suspicion")), **recipe)
    assert (pgd.attack.epsilon, flags.epsilon) == (0.1, 0.1)


def test_entries_lose_their_l_infinity_epsilon_alone():
    attacks = [{"name": "fgsm", "epsilon": 0.1}, {"name": "pgd", "norm": "l2", "epsilon": 0.5}]
    assert without_epsilon({"name": "cascade", "attacks": attacks, "limit": 5}) == {
        "name": "cascade",
        "attacks": [{"name": "fgsm"}, attacks[1]],
        "limit": 5,
    }
    assert without_epsilon({"name": "square", "epsilon": 0.1, "as": "s"}) == {
        "name": "square",
        "as": "s",
    }
    assert without_epsilon("suspicion") == {"name": "suspicion"}
    sphere = {"name": "noise", "region": "sphere", "epsilon": 0.5, "limit": 3, "as": "s"}
    assert without_epsilon(sphere) == sphere


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"name": "pgd", "stepz": 3}, "metrics.pgd.stepz: unknown key; known: label, limit, "),
        ({"name": "pgd", "target": "labels"}, "metrics.pgd.target: expected null, least-likely"),
        ({"name": "pgd", "limit": 0}, "metrics.pgd: expected limit >= 1, got 0"),
        ({"name": "cascade", "attacks": []}, "metrics.cascade.attacks: expected a list"),
        ({"name": "cascade", "attacks": ["moon"]}, "metrics.cascade.attacks: expected one of fgsm"),
        ({"name": "cascade", "attacks": [{"name": "pgd", "steps": 0}]}, "metrics.cascade.attacks."),
        ({"name": "cascade", "apgd_steps": 0}, "metrics.cascade.attacks.apgd: expected steps >= 1"),
        ({"name": "cascade", "attacks": ["pgd"], "pgd_steps": 3}, "metrics.cascade: expected"),
    ],
)
def test_a_mistake_is_one_line(entry, line):
    with pytest.raises(InputError) as caught:
        built(entry)
    assert str(caught.value).startswith(line), caught.value
