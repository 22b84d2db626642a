"""What the card says in its YAML header, which the Hugging Face hub reads, and whom to cite.

Source: the hub's description of a model card's metadata (huggingface/hub-docs, ``modelcard.md``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from nas.errors import InputError
from nas.search.trust import plain_names

DATASETS = {
    # ours -> an id of the hub; others have none there, and none is made up
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "food101": "ethz/food101",
}
LICENCES = frozenset(
    "apache-2.0 mit openrail afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl "
    "mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl".split()
)
"""Identifiers that the hub knows; another licence is ``other`` there, with its name beside it."""

PAPERS = {
    "cubuk2017": "Cubuk, Zoph, Schoenholz, Le. Intriguing Properties of Adversarial Examples. "
    "2017. arXiv:1711.02846",
    "zoph2017": "Zoph, Vasudevan, Shlens, Le. Learning Transferable Architectures for Scalable "
    "Image Recognition. 2017. arXiv:1707.07012",
    "dong2020": "Dong, Yang. NAS-Bench-201: Extending the Scope of Reproducible Neural "
    "Architecture Search. ICLR 2020. arXiv:2001.00326",
    "he2015": "He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016. "
    "arXiv:1512.03385",
    "zagoruyko2016": "Zagoruyko, Komodakis. Wide Residual Networks. BMVC 2016. arXiv:1605.07146",
    "peck2017": "Peck, Roels, Goossens, Saeys. Lower bounds on the robustness to adversarial "
    "perturbations. NIPS 2017",
    "sutton2023": "Sutton, Zhou, Tyukin, Gorban, Bastounis, Higham. How adversarial attacks can "
    "disrupt seemingly stable accurate classifiers. 2023. arXiv:2309.03665",
    "psi": "Preliminary Analysis of Adversarial Susceptibility in Neural Networks via Analogy to "
    "Chaos-Theoretic Sensitive Dependence",
    "madry2018": "Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant "
    "to Adversarial Attacks. ICLR 2018. arXiv:1706.06083",
    "goodfellow2015": "Goodfellow, Shlens, Szegedy. Explaining and Harnessing Adversarial "
    "Examples. ICLR 2015. arXiv:1412.6572",
    "kurakin2017": "Kurakin, Goodfellow, Bengio. Adversarial Machine Learning at Scale. ICLR "
    "2017. arXiv:1611.01236",
    "zhang2019": "Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan. Theoretically Principled Trade-off "
    "between Robustness and Accuracy. ICML 2019. arXiv:1901.08573",
    "wang2020": "Wang, Zou, Yi, Bailey, Ma, Gu. Improving Adversarial Robustness Requires "
    "Revisiting Misclassified Examples. ICLR 2020",
    "wu2020": "Wu, Xia, Wang. Adversarial Weight Perturbation Helps Robust Generalization. "
    "NeurIPS 2020. arXiv:2004.05884",
}
OF_SPACES = {
    "depth-channels": ("psi",),
    "feedforward": ("cubuk2017",),
    "nasnet": ("zoph2017", "cubuk2017"),
    "nasbench201": ("dong2020",),
    "resnet": ("he2015",),
    "cifar-resnet": ("he2015", "zagoruyko2016"),
    "lenet": ("peck2017",),
    "vgg-lite": ("sutton2023",),
}
OF_RECIPES = {
    # (setting, value) -> papers; a setting alone where any value but none or 0 is the paper's
    ("adversary", "pgd"): ("madry2018",),
    ("adversary", "fgsm"): ("goodfellow2015",),
    ("adversary", "step-ll"): ("kurakin2017",),
    ("loss", "trades"): ("zhang2019",),
    ("loss", "mart"): ("wang2020",),
    ("awp", None): ("wu2020",),
}


def check_licence(name: str) -> str:
    """Return a licence's name.

    Raises:
        InputError: it is no SPDX identifier in form.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}", name):
        raise InputError(f"--licence: expected an SPDX identifier, such as MIT, got {name!r}")
    return name


def papers_of(space: str, recipe: Mapping[str, Any]) -> list[str]:
    """Return the papers that an architecture and its training come from."""
    keys = list(OF_SPACES.get(space, ()))
    for (setting, value), papers in OF_RECIPES.items():
        got = recipe.get(setting)
        if (got == value) if value is not None else bool(got):
            keys += papers
    return [PAPERS[key] for key in dict.fromkeys(keys)]


def header(
    description: Mapping[str, Any], *, licence: str | None, formats: Iterable[str] = ()
) -> str:
    """Return the YAML header of a card, without its fences.

    Licence, datasets and results are those that are known: nothing is made up for the hub.
    """
    architecture, trial = description["architecture"], description["trial"]
    data, scores = str(trial["data"]["name"]), trial["scores"]
    known: dict[str, Any] = {"license": "unknown"}
    if licence is not None:
        known["license"] = licence.lower() if licence.lower() in LICENCES else "other"
        if known["license"] == "other":
            known["license_name"] = licence.lower()
    known |= {
        "library_name": "psinas",
        "pipeline_tag": "image-classification",
        "tags": [
            "image-classification",
            "adversarial-robustness",
            "neural-architecture-search",
            "psinas",
            "pytorch",
            *(["onnx"] if "onnx" in formats else []),
        ],
    }
    if data in DATASETS:
        known["datasets"] = [DATASETS[data]]
    results = [
        {"type": "accuracy", "name": str(name), "value": round(float(scores[name]), 6)}
        for name in plain_names(scores)
        if name.endswith("_accuracy") and math.isfinite(scores[name])
        and not name.startswith(("best_epoch", "last_epoch"))
    ]  # fmt: skip
    if results:
        known["metrics"] = ["accuracy"]
        known["model-index"] = [
            {
                "name": f"{architecture['space']}-{architecture['hash']}",
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {
                            "type": DATASETS.get(data, data),
                            "name": data,
                            "split": "validation",
                        },
                        "metrics": results,
                    }
                ],
            }
        ]
    return yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=1000)
