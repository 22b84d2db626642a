"""Models compared on what all of them get right: chosen once, recorded, measured once."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from metrics.susceptibility import susceptibility
from nas.analysis.common_correct import (
    COMMON,
    MEASURED,
    MIDDLE,
    RADII,
    CommonCorrect,
    common_correct,
    measure,
    recorded_common,
)
from nas.errors import InputError


class Fixed(nn.Module):
    """Predicts a fixed label for each image, told by its first pixel."""

    def __init__(self, labels, classes=4):
        super().__init__()
        self.answers = torch.tensor(labels)
        self.classes = classes

    def forward(self, x):
        index = (x[:, 0, 0, 0] * 100).round().long()
        return nn.functional.one_hot(self.answers[index], self.classes).float()


def numbered(n):
    return (torch.arange(n) / 100).view(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()


LABELS = [0, 1, 2, 3, 0, 1, 2, 3]


def test_only_what_every_model_gets_right():
    models = {
        7: Fixed([0, 1, 2, 3, 0, 1, 2, 0]),  # wrong about the last
        3: Fixed([3, 1, 2, 3, 0, 1, 2, 3]),  # and the first
    }
    found = common_correct(models, numbered(8), torch.tensor(LABELS), count=4)
    assert found.indices == (1, 2, 3, 4)
    assert (found.images, found.correct) == (8, 6)
    assert found.models == {7: 7 / 8, 3: 7 / 8}
    assert found.left_out == {}
    assert common_correct(models, numbered(8), torch.tensor(LABELS), 99).indices == (
        1,
        2,
        3,
        4,
        5,
        6,
    )


def test_a_model_that_guesses_is_left_out_and_named():
    models = {0: Fixed(LABELS), 1: Fixed([0] * 8)}
    found = common_correct(models, numbered(8), torch.tensor(LABELS), count=8)
    assert found.left_out == {1: 0.25}
    assert len(found.indices) == 8


def test_two_classes_can_be_compared():
    """Twice the accuracy of guessing would be all of it."""
    labels = [0, 1] * 4
    models = {0: Fixed(labels, classes=2), 1: Fixed([0] * 8, classes=2)}
    found = common_correct(models, numbered(8), torch.tensor(labels), count=8)
    assert found.models == {0: 1.0}
    assert found.left_out == {1: 0.5}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"asked": 1', '{"key": 3}'])
def test_a_broken_record_is_made_again(content, tmp_path, digits, digits_net):
    (tmp_path / COMMON).write_text(content)
    chosen = CommonCorrect({0: 0.5}, {}, 8, 5, (1, 2, 3))
    assert recorded_common(tmp_path, {0: digits_net}, "data", lambda: chosen) == chosen
    (tmp_path / "trials" / "0").mkdir(parents=True)
    (tmp_path / "trials" / "0" / MEASURED).write_text(content)
    assert measure(tmp_path, 0, digits_net, digits.validation.images(slice(4)), "key")["psi"] > 0


def test_an_input_that_nothing_moves_leaves_no_ratio(tmp_path):
    class Half(nn.Module):
        def forward(self, x):
            flat = x.flatten(1)[:, :3]
            return torch.where(x.flatten(1)[:, 3:4] > 0.5, flat, flat * 0)

    (tmp_path / "trials" / "0").mkdir(parents=True)
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 3] = 0.9
    x[2, 0, 0, 3] = 0.1
    found = measure(tmp_path, 0, Half(), x, "key")
    for name in ("psi", "psi_low", "psi_high", "psi_limit", "radius_mean"):
        assert math.isnan(found[name])
    assert found["doubtful"] >= 13  # the one input at every radius


def test_nothing_in_common_is_one_line():
    half, other = Fixed([0, 1, 2, 3, 0, 0, 0, 0]), Fixed([1, 0, 0, 3, 0, 1, 2, 3])
    with pytest.raises(
        InputError, match="at least 4 images that all 2 models get right, got 2 of 8"
    ):
        common_correct({0: half, 1: other}, numbered(8), torch.tensor(LABELS), count=8)
    with pytest.raises(InputError, match=r"better than guessing \(0.25\), got accuracies of 0.25"):
        common_correct({0: Fixed([0] * 8)}, numbered(8), torch.tensor(LABELS), count=8)


def test_chosen_once_and_recorded(tmp_path):
    models = {0: Fixed(LABELS), 1: Fixed(LABELS)}
    calls = []

    def choose():
        calls.append(1)
        return CommonCorrect({0: 0.5, 1: 0.75}, {2: 0.25}, 8, 5, (1, 2, 3))

    first = recorded_common(tmp_path, models, "data", choose)
    assert recorded_common(tmp_path, models, "data", choose) == first == choose()
    assert len(calls) == 2  # once here, once to compare
    record = json.loads((tmp_path / COMMON).read_text())
    assert record["chosen"]["indices"] == [1, 2, 3]
    recorded_common(tmp_path, {0: models[0]}, "data", choose)  # other models choose again
    recorded_common(tmp_path, {0: models[0]}, "other", choose)
    assert len(calls) == 4


def test_measured_once_for_the_same_inputs(tmp_path, digits, digits_net):
    (tmp_path / "trials" / "4").mkdir(parents=True)
    x = digits.validation.images(slice(12))
    found = measure(tmp_path, 4, digits_net, x, "key")
    direct = susceptibility(
        digits_net, x, radii=RADII[MIDDLE], generator=torch.Generator().manual_seed(1)
    )
    assert found["psi"] == pytest.approx(direct.value, rel=0.05)  # other starts
    assert found["psi_low"] < found["psi"] < found["psi_high"]
    assert found["psi_limit"] >= 0.95 * found["psi"]
    middle = found["radii"][MIDDLE]
    assert (middle[0], middle[-1]) == pytest.approx((1e-4, 1e-2))
    assert (found["radii"][0], found["radii"][-1]) == pytest.approx((1e-5, 1e-1))
    assert found["accuracy_at"][0] == 1.0  # right before the attack, and 1e-5 moves nothing
    assert found["accuracy_at"][-1] < 1.0
    with torch.no_grad():
        top = digits_net(x).topk(2, dim=1).values
    expected = ((top[:, 0] - top[:, 1]) / math.sqrt(20) / found["psi"]).mean().item()
    assert found["radius_mean"] == pytest.approx(expected, rel=1e-5)
    path = tmp_path / "trials" / "4" / MEASURED
    path.write_text(path.read_text().replace('"psi": ', '"psi": 1'))
    assert measure(tmp_path, 4, digits_net, x, "key")["psi"] != found["psi"]  # as it was written
    assert measure(tmp_path, 4, digits_net, x, "another") != found
    assert (
        measure(tmp_path, 4, digits_net, x, "key")["psi"] == found["psi"]
    )  # measured again, equal
