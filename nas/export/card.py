"""The model card: what was found, how it was judged, and how far that is to be believed.

Names of scores, choices and data are other people's text: Markdown and HTML in them are escaped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.data.checksum import DATA_CHECKSUM
from nas.export.agreement import Agreement
from nas.export.formats import OPSET, WRITERS
from nas.export.metadata import header, papers_of
from nas.search.trust import BEGIN, advice, suspicions, was_checked
from nas.trial.deviations import DEVIATION

INTERVAL = ("_low", "_high")
HOW = {
    "onnx": f"any runtime of ONNX, opset {OPSET}; input `images`, output `logits`",
    "program": '`torch.export.load("model.pt2").module()`, without psinas',
    "python": "`from model import load; model = load()`, torch alone, and can be trained on",
}


@dataclass(frozen=True)
class Written:
    """What an export has beside weights and description.

    Attributes:
        formats: format -> how it answered beside the original.
        left_out: a line for each format that is not there.
        asked: the images that formats were asked about, for a person.
        epsilon: of the attack on them.
        cell: whether the cell is drawn.
        robustbench: whether there is a wrapper for RobustBench.
        licence: of the weights, as the user named it.
        cost: ``parameters`` and ``macs``, where they were counted for the export.
    """

    formats: Mapping[str, Agreement] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    asked: str = ""
    epsilon: float = 0.0
    cell: bool = False
    robustbench: bool = False
    licence: str | None = None
    cost: Mapping[str, float] = field(default_factory=dict)


def plain(text: object) -> str:
    """Return text that Markdown shows as it is, in one line.

    Underscores within words stay: they mean nothing there, and names are easier to find.
    """
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~#$])", r"\\\1", line)
    line = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)
    return re.sub(r"(https?|www|ftp)(:|\.)", r"\1&#8203;\2", line)


def model_card(description: Mapping[str, Any], written: Written | None = None) -> str:
    """Return the model card, Markdown under a YAML header, of an exported description."""
    written = Written() if written is None else written
    architecture, task, trial = (description[k] for k in ("architecture", "task", "trial"))
    choices = plain(", ".join(f"{k} {v}" for k, v in architecture["choices"].items()))
    name = plain(architecture["space"])
    channels, height, width = task["shape"]
    kind = ""
    if trial.get("averaged_weights"):
        kind = "\n\nThe weights are a moving average of those of training (`weight_average`)."
    versions = plain(", ".join(f"{k} {v}" for k, v in trial["environment"].items()))
    cell = "\n\n![The cell that the network repeats](cell.svg)" if written.cell else ""
    sections = [
        f"# {name}: {choices}",
        f"""Found and trained by psinas: trial {trial["number"]}, architecture \
`{plain(architecture["hash"])}`,
search seed {trial["seed"]}. The scores are of **validation** images, which also chose the epoch
and the architecture: expect somewhat less on test images (`psinas score` measures them).\
{kind}{cell}""",
        f"""## Use

```python
from search_spaces import load

model = load("PATH/TO/THIS/DIRECTORY")  # images ({channels}, {height}, {width}) in [0, 1] to logits
```

Normalisation is inside the model.{_formats(written)}""",
        f"## Scores\n\n{_scores(trial)}\n\n{_doubts(trial['scores'])}",
        f"## Attacks and other measures, as run\n\n{_measures(trial.get('metrics') or ())}",
        f"## Susceptibility and bounds\n\n{_bounds(trial['scores'])}",
        f"## Data\n\n{_data(trial, task)}",
        f"## Recipe\n\n{_table(trial['recipe'])}",
        f"## Cost\n\n{_cost({**written.cost, **trial['scores']})}",
        f"## Licence\n\n{_licence(written.licence)}",
        f"## Citation\n\n{_citation(str(architecture['space']), trial['recipe'])}",
        f"Made with {versions}.",
    ]
    yaml = header(description, licence=written.licence, formats=written.formats)
    return f"---\n{yaml}---\n\n" + "\n\n".join(sections) + "\n"


def _formats(written: Written) -> str:
    rows = [
        f"| {WRITERS[name][1][0]} | {HOW[name]} | {found.difference:.2g} (at most "
        f"{found.tolerance:.2g}) | {found.images - found.clean}, {found.images - found.attacked} | "
        f"{found.accuracies[0]:.4g}, {found.accuracies[1]:.4g} |"
        for name, found in written.formats.items()
    ]
    if not rows and not written.left_out:
        return ""
    lines = []
    if rows:
        some = next(iter(written.formats.values()))
        ties = max(found.near_ties for found in written.formats.values())
        lines = [
            f"Other formats, each held against the model on {some.images} {plain(written.asked)}, "
            "in batches of 1, 2, 7 and 64, and on adversarial images made on the model (FGSM, L "
            f"infinity, ε = {written.epsilon:.4g}):",
            "",
            "| file | how | largest difference of a logit | same predictions, clean and attacked | "
            "accuracy under attack: model, file |",
            "|---|---|---|---|---|",
            *rows,
        ]
        if ties:
            lines += ["", f"{ties} of them are near-ties, where two classes may change places."]
    lines += ["", *(plain(line) + "." for line in written.left_out)] if written.left_out else []
    if written.robustbench:
        lines += ["", "`robustbench_model.py` is the model as RobustBench evaluates it."]
    return "\n\n" + "\n".join(lines).strip()


def _scores(trial: Mapping[str, Any]) -> str:
    """Return the table of scores: of repeats their mean, deviation, and those of these weights."""
    scores = {n: v for n, v in trial["scores"].items() if BEGIN not in n}
    ends = {
        name for name in scores if name.endswith(INTERVAL) and name.rpartition("_")[0] in scores
    }
    shown = {n: v for n, v in scores.items() if n not in ends}
    repeats = trial.get("repeats") or []
    if not repeats:
        rows = [f"| {plain(n)} | {v:.6g} | {_interval(scores, n)} |" for n, v in shown.items()]
        return "\n".join(
            [
                "Intervals: 95 %, of accuracies Wilson's, over images alone and not over seeds.",
                "",
                "| score | value | interval |",
                "|---|---|---|",
                *rows,
            ]
        )
    own = repeats[trial["repeat"]]
    rows = []
    for name, mean in scores.items():
        if not name.endswith(DEVIATION):
            spread = scores.get(name + DEVIATION)
            cell = "" if spread is None else f"{spread:.2g}"
            rows.append(f"| {plain(name)} | {mean:.6g} | {cell} | {own[name]:.6g} |")
    return "\n".join(
        [
            f"The architecture was trained under {len(repeats)} seeds, and judged by the worse end "
            "of mean ± deviation (of the sample, n - 1). The weights here are those of repeat "
            f"{trial['repeat']} of 0 ... {len(repeats) - 1}, whose scores lie nearest the mean.",
            "",
            "| score | mean | deviation | these weights |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _interval(scores: Mapping[str, float], name: str) -> str:
    low, high = (scores.get(name + end) for end in INTERVAL)
    return "" if low is None or high is None else f"{low:.6g} to {high:.6g}"


def _doubts(scores: Mapping[str, float]) -> str:
    if not was_checked(scores):
        return "The search did not look for masked gradients (metric `suspicion`)."
    if flags := suspicions(scores):
        lines = "\n".join(f"- {plain(line)}" for line in advice(flags))
        return (
            f"**Suspicious: {plain(', '.join(flags))}.** Its robust accuracy may be a masked "
            f"gradient; do not rely on it before you know why.\n\n{lines}"
        ).strip()
    return "No sign of masked gradients was found (metric `suspicion`)."


def _measures(metrics: Sequence[Any]) -> str:
    if not metrics:
        return "Not recorded."
    rows = []
    for entry in metrics:
        settings = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = settings.pop("name", "?")
        given = ", ".join(f"{k} {_value(v)}" for k, v in settings.items())
        rows.append(f"| {plain(name)} | {plain(given)} |")
    return "\n".join(["| measure | every setting |", "|---|---|", *rows])


def _bounds(scores: Mapping[str, float]) -> str:
    """Return Ψ and both ends of the smallest perturbation, where they were measured."""
    lines = []
    psi = scores.get("psi")
    if psi is None:
        lines.append("Ψ was not measured (metric `psi`).")
    else:
        interval = _interval(scores, "psi")
        line = f"Ψ = {psi:.4g}" + (f" ({interval})" if interval else "")
        if "psi_radius_mean" in scores:
            line += f"; estimated robustness radius {scores['psi_radius_mean']:.4g} (RMS, mean)"
        if scores.get("psi_saturated") == 1:
            line += "; **saturated**: it depends on the radius, and is no limit"
        lines.append(line + ".")
    lower, upper = scores.get("bracket_lower"), scores.get("bracket_upper")
    if lower is None or upper is None:
        lines.append("The smallest perturbation was not bracketed (metric `bracket`).")
    else:
        lines.append(f"Smallest perturbation, medians of proven lower and found upper ends: "
                     f"{lower:.4g} to {upper:.4g}.")  # fmt: skip
        if "bracket_certified" in scores:
            shares = ", ".join(f"{k} {scores[f'bracket_{k}']:.4g}"
                               for k in ("certified", "broken", "unknown"))  # fmt: skip
            lines.append(f"Shares of images within the radius asked about: {shares}.")
    return "\n".join(f"- {line}" for line in lines)


def _data(trial: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    data = dict(trial["data"])
    name = data.pop("name")
    channels, height, width = task["shape"]
    sums = trial.get(DATA_CHECKSUM) or {}
    checked = ", ".join(f"{part} `{plain(value)}`" for part, value in sums.items())
    lines = [
        f"Data: {plain(name)}, {task['classes']} classes, images of {channels} x {height} x "
        f"{width}. Checksums: {checked or 'none recorded'}."
    ]
    if rest := {k: v for k, v in data.items() if k not in ("root", "download")}:
        lines += ["", _table(rest)]
    return "\n".join(lines)


def _table(settings: Mapping[str, Any]) -> str:
    rows = [f"| {plain(name)} | {plain(_value(value))} |" for name, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _cost(scores: Mapping[str, float]) -> str:
    known = {
        "parameters": "trainable parameters",
        "macs": "multiply-accumulates for one image",
        "train_seconds": "seconds of training, on the device named below",
    }
    rows = [f"| {what} | {scores[name]:,.0f} |" for name, what in known.items()
            if math.isfinite(scores.get(name, math.nan))]  # fmt: skip
    return "\n".join(["| what | how much |", "|---|---|", *rows]) if rows else "Not measured."


def _licence(name: str | None) -> str:
    if name is None:
        return (
            "Unknown: whoever exported these weights named none (`psinas export --licence`). The "
            "licence of psinas is that of its code; that of the training data may bind you too."
        )
    return f"{plain(name)}, as named by whoever exported these weights."


def _citation(space: str, recipe: Mapping[str, Any]) -> str:
    lines = [
        "```bibtex",
        "@software{psinas,",
        "  title = {psinas: search for neural architectures that stay right under attack},",
        "}",
        "```",
    ]
    if papers := papers_of(space, recipe):
        lines += ["", "Space and recipe come from:", "", *(f"- {paper}" for paper in papers)]
    return "\n".join(lines)
