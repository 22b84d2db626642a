"""What psinas score says of what it scored."""

from __future__ import annotations

from launch.config.metrics import build_metric, metric_settings
from launch.show.scored import header_lines


def of(*entries, images=2000):
    metrics = []
    for entry in entries:
        metric = build_metric(entry, 8 / 255)
        looked_at = min(images, metric.limit or images)
        metrics.append({**metric_settings(entry, metric), "images": looked_at})
    plain = {"model": "m", "dataset": "digits", "split": "test", "images": images, "seed": 0}
    return header_lines({**plain, "metrics": metrics})


def test_an_attack_has_its_epsilon_and_effort():
    assert of("clean", "pgd")[-1].split(maxsplit=1) == ["pgd", "epsilon 8/255, norm linf, steps 7"]


def test_a_stability_has_its_lengths_and_draws():
    (name, told) = of({"name": "stability", "deltas": [2, 0.5], "draws": 30})[-1].split(maxsplit=1)
    assert name == "stability"
    assert told == "deltas 2 0.5, region ball, draws 30, mode margin; 50 images"
