"""Configurations: presets resolve, and a mistake is one line that says what was expected."""

from __future__ import annotations

import pytest
import yaml

from launch.config.config import differing_keys, load_config, parse_config
from launch.config.documents import preset_about, preset_names, read_document
from metrics import METRICS
from nas.errors import InputError
from nas.trial.trial import Trial


@pytest.mark.parametrize("name", preset_names())
def test_presets_resolve_and_the_resolved_one_is_the_same(name):
    config = load_config(name)
    document = config.resolved()
    again = parse_config(yaml.safe_load(yaml.safe_dump(document, sort_keys=False)))
    assert again.resolved() == document
    assert not differing_keys(config, again)
    plan, same = config.plan(), again.plan()
    assert isinstance(plan.template, Trial)
    assert plan.template == same.template
    assert list(plan.decisions) == list(same.decisions)
    assert config.name == name
    assert preset_about(name)


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("cifar10-trades", {"loss": "trades", "beta": 6.0, "schedule": "cosine"}),
        ("cifar10-pgd-average", {"loss": "cross-entropy", "milestones": (0.5, 0.75)}),
    ],
)
def test_presets_of_one_space_differ_in_the_recipe_alone(name, differing):
    """So that what they find compares recipes; the settings in common are those of the papers."""
    plain, config = load_config("cifar10-pgd"), load_config(name)
    changed = {key.partition(".")[0] for key in differing_keys(plain, config)}
    assert changed == {"name", "recipe"}
    common = {
        "batch_size": 128, "learning_rate": 0.1, "weight_decay": 5e-4, "momentum": 0.9,
        "steps": 10, "step_size": 2 / 255, "epsilon": 8 / 255, "adversarial_share": 1.0,
        "flip": True, "crop_padding": 4, "weight_average": 0.995,
    }  # fmt: skip
    assert {k: getattr(config.recipe, k) for k in common | differing} == common | differing


def test_the_default_preset_comes_first():
    assert preset_names()[0] == "digits"


def test_fractions_and_assignments():
    config = load_config(
        "digits", ["recipe.epsilon=8/255", "space.depth=[1, 2]", "data.limit.train=50", "trials=3"]
    )
    assert config.recipe.epsilon == 8 / 255
    assert config.plan().space.depth == (1, 2)
    assert config.data.limit.train == 50
    assert config.trials == 3


def test_attacks_take_the_recipes_epsilon_unless_they_name_one():
    config = load_config(
        "digits",
        [
            "recipe.epsilon=0.2",
            "metrics=[pgd, {name: pgd, epsilon: 4/255, as: weak, steps: 20}]",
            "objectives={weak_accuracy: max}",
        ],
    )
    first, second = config.built_metrics()
    assert first == METRICS["pgd"](epsilon=0.2)
    assert second == METRICS["pgd"](epsilon=4 / 255, steps=20, label="weak")


def test_a_file_and_user_classes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nspace: {name: 'faulty_spaces:Faulty', kinds: [good]}\ntrials: 1\n")
    config = load_config(path)
    assert config.plan().template.architecture.space == "faulty_spaces:Faulty"
    assert config.resolved()["space"]["kinds"] == ["good"]


def test_vary_accepts_recipe_and_data_keys():
    config = load_config(
        "digits",
        ["vary={recipe.entropy_weight: [0, 4.5], data.classes: [[0, 1], [2, 3]], repeat: [0, 1]}"],
    )
    assert config.plan().size == 20 * 8


MISTAKES = [
    ("recipe.epsilom=1", "recipe.epsilom: unknown key; known: epochs, "),
    ("moon=1", "moon: unknown key; known: name, seed, data, "),
    ("data.limit.tran=3", "data.limit.tran: unknown key; known: train, validation, test"),
    ("space.height=3", "space.height: unknown key; known: depth, channels, stem"),
    ("sampler.moon=1", "sampler.moon: unknown key; known: startup_trials"),
    ("metrics=[{name: pgd, stepz: 3}]", "metrics.pgd.stepz: unknown key; known: label, limit, "),
    ("recipe.epsilon=8", "recipe.epsilon: expected a pixel distance in [0, 1], such as 8/255, got"),
    ("metrics=[{name: pgd, epsilon: 8}]", "metrics.pgd.epsilon: expected a pixel distance"),
    ("recipe.epochs=three", "recipe.epochs: expected a valid integer"),
    ("recipe.adversary=cw", "recipe.adversary: expected one of none, fgsm, step-ll, pgd, "),
    ("recipe=3", "recipe: expected a dictionary"),
    ("data.name=imaginary", "data.name: expected one of digits, mnist, "),
    ("data.classes=[1]", "data.classes: expected two or more distinct labels"),
    ("space.name=moon", "space.name: expected a search space (depth-channels"),
    ("space.depth=[]", "space.depth: expected distinct integers >= 1, got []"),
    ("space.depth=3", "space.depth: expected a valid tuple, got 3"),
    ("sampler.name=moon", "sampler.name: expected one of random, grid, tpe, nsga2"),
    ("sampler={}", "sampler: expected a name, got {}"),
    ("metrics=[moon]", "metrics: expected one of clean, fgsm, "),
    ("metrics=[pgd, pgd]", "metrics: expected different score names"),
    ("objectives={moon: max}", "objectives: expected a score (clean_accuracy, "),
    ("objectives={psi: down}", "objectives.psi: expected 'max' or 'min', got 'down'"),
    ("objectives={}", "objectives: "),
    ("trials=0", "trials: expected greater than or equal to 1, got 0"),
    ("trials=null", "trials: expected a number, got null: only the grid"),
    ("vary={recipe.moon: [1]}", "vary: expected keys among recipe.epochs, "),
    ("vary={data.root: [a, b]}", "vary: expected keys among recipe.epochs, "),
    ("vary={recipe.epsilon: [8]}", "recipe.epsilon: expected a pixel distance"),
    ("vary={recipe.epochs: []}", "vary.recipe.epochs: expected one or more values, got none"),
    ("vary={recipe: [3]}", "vary.recipe: expected mappings of recipe keys, got 3"),
    (
        "vary={recipe: [{epochs: 1}, {epochs: 2}], recipe.epochs: [1, 3]}",
        "vary: expected recipe.epochs once, got it in vary.recipe and by itself",
    ),
    (
        "vary={recipe: [{epochs: 1, steps: 2}, {steps: 2, epochs: 1}]}",
        "vary.recipe: expected different values",
    ),
    ("fix={height: 3}", "fix: expected decisions among depth, channels, got 'height'"),
    ("fix={depth: 99}", "fix.depth: expected one of ["),
    ("vary={repeat: [-1]}", "vary.repeat: expected integers >= 0, got -1"),
    ("scheduler.name=hyperband", "scheduler.name: expected 'asha', got 'hyperband'"),
    ("scheduler={metric: psi}", "scheduler.metric: expected one of robust_accuracy, clean_"),
    ("scheduler={metric: []}", "scheduler.metric: expected one of robust_accuracy, clean_accuracy"),
    ("scheduler={metric: [clean_accuracy, psi]}", "scheduler.metric: expected one of robust_acc"),
    (
        "scheduler={metric: [clean_accuracy, clean_accuracy]}",
        "scheduler.metric: expected one of robust_accuracy, clean_accuracy, or a list of different",
    ),
    ("scheduler={metric: {robust_accuracy: max}}", "scheduler.metric: expected one of robust_acc"),
    ("scheduler={reduction_factor: 1}", "scheduler.reduction_factor: expected greater than 1"),
    ("scheduler={grace_period: 0}", "scheduler.grace_period: expected greater than or equal to 1"),
    ("resources.cpu=0", "resources.cpu: expected greater than or equal to 1, got 0"),
    ("resources.gpu=many", "resources.gpu"),
    ("name=../up", "name: "),
    ("scheduler={grace_period: 99}", "scheduler.grace_period: expected at most the 8 epochs"),
    ("resources.gpu=-1", "resources.gpu"),
    ("resources.gpu=1.5", "resources.gpu: expected auto or a share of one GPU"),
    ("resources.gpu=2", "resources.gpu: expected auto or a share of one GPU in a search, got 2"),
    ("resources.processes=2", "resources.processes: expected 1 in a search, got 2"),
    ("resources={processes: 4, gpu: 2}", "resources.gpu: expected auto, 0 or 4, a GPU for each"),
    ("resources={processes: 2, gpu: 0.5}", "resources.gpu: expected auto, 0 or 2, a GPU for each"),
    ("resources.gpu=.nan", "resources.gpu"),
    ("sampler={name: 'nas.samplers.registry:SAMPLERS'}", "sampler.name: expected a BaseSampler"),
    ("sampler={name: ':x'}", "sampler.name: ':x' cannot be imported"),
    ("sampler.startup_trials=abc", "sampler.startup_trials: expected a valid integer"),
    ("metrics=['metrics.cost:macs']", "metrics: expected a subclass of Metric"),
    ("metrics=['metrics.cost:no']", "metrics: 'metrics.cost:no' cannot be imported"),
    ("vary={recipe.epochs: [2, 2]}", "vary.recipe.epochs: expected different values"),
    ("vary={recipe.epochs: [two]}", "recipe.epochs: expected a valid integer"),
    ("space={name: 'faulty_spaces:Taken'}", "space: expected other names of decisions than"),
    ("space={name: 'faulty_spaces:Named'}", "space.name: expected faulty_spaces:Named without"),
    ("recipe.epsilon", "--set: expected key=value, got 'recipe.epsilon'"),
    ("recipe.epsilon=[", "--set recipe.epsilon: expected a YAML value, got '['"),
]


@pytest.mark.parametrize(("assignment", "line"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_line(assignment, line):
    with pytest.raises(InputError) as caught:
        load_config("digits", [assignment])
    message = str(caught.value)
    assert message.startswith(line)
    assert "\n" not in message


def test_sources_that_are_not_there(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    for source, match in [
        ("moon", "a preset .digits, "),
        (tmp_path / "no.yaml", "No such file"),
        (tmp_path / "folder.yaml", "directory"),
    ]:
        with pytest.raises(InputError, match=match):
            load_config(source)
    (tmp_path / "bad.yaml").write_text("a: [1\nb: }")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match="expected YAML") as caught:
        read_document(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="expected a mapping"):
        read_document(tmp_path / "list.yaml")


def test_differing_keys_name_what_decides_scores():
    old = load_config("digits")
    new = load_config("digits", ["recipe.epochs=2", "seed=1", "trials=99", "resources.workers=1",
                                 "keep.top=1", "keep.checkpoint_seconds=0",
                                 "data.root=/elsewhere"])  # fmt: skip
    assert differing_keys(old, new) == ["recipe.epochs", "seed"]


def test_checkpoints_are_written_every_minute_unless_said_otherwise():
    assert load_config("digits").keep.checkpoint_seconds == 60
    for given, seconds in (("0", 0.0), ("null", None), ("2.5", 2.5)):
        config = load_config("digits", [f"keep.checkpoint_seconds={given}"])
        assert config.keep.checkpoint_seconds == seconds
    for given in ("-1", ".inf", ".nan", "often"):
        with pytest.raises(InputError, match="keep.checkpoint_seconds"):
            load_config("digits", [f"keep.checkpoint_seconds={given}"])


def test_the_order_of_objectives_and_decisions_matters():
    old = load_config("digits", ["vary={recipe.epochs: [1, 2], repeat: [0, 1]}"])
    for change in (
        "objectives={psi: min, pgd_accuracy: max}",
        "vary={repeat: [0, 1], recipe.epochs: [1, 2]}",
    ):
        new = load_config("digits", ["vary={recipe.epochs: [1, 2], repeat: [0, 1]}", change])
        assert len(differing_keys(old, new)) == 1


def test_varied_values_are_what_their_keys_want():
    config = load_config(
        "digits",
        [
            "vary={recipe.epochs: ['2', 3.0], recipe.entropy_weight: [0, 1], "
            "recipe.step_size: [null, 2/255]}"
        ],
    )
    assert config.plan().vary == {
        "recipe.epochs": [2, 3],
        "recipe.entropy_weight": [0.0, 1.0],
        "recipe.step_size": [None, 2 / 255],
    }
    assert all(type(v) is int for v in config.plan().vary["recipe.epochs"])


def test_a_scheduler_takes_one_value_or_several():
    def resolved(metric):
        return load_config("digits", [f"scheduler={{metric: {metric}}}"]).resolved()["scheduler"]

    one = {"name": "asha", "metric": "robust_accuracy", "grace_period": 1, "reduction_factor": 3}
    assert load_config("digits", ["scheduler={name: asha}"]).resolved()["scheduler"] == one
    assert resolved("[robust_accuracy]") == resolved("robust_accuracy") == one
    both = ["clean_accuracy", "robust_accuracy"]
    assert resolved("[clean_accuracy, robust_accuracy]") == {**one, "metric": both}
    config = load_config("digits", ["scheduler={metric: [clean_accuracy, robust_accuracy]}"])
    assert config.scheduler.metrics == tuple(both)
    assert parse_config(config.resolved()).resolved() == config.resolved()


@pytest.mark.parametrize(
    "assignment",
    [
        "recipe.selection_images=0",
        "vary={recipe.selection_images: [0, 9]}",
        "vary={recipe: [{selection_images: 0}, {epochs: 9}]}",
    ],
)
def test_a_scheduler_needs_judged_epochs(assignment):
    with pytest.raises(InputError) as caught:
        load_config("digits", ["scheduler={name: asha}", assignment])
    line = "scheduler: expected recipe.selection_images >= 1 to judge epochs by, got 0"
    assert str(caught.value) == line
    assert load_config("digits", [assignment])
