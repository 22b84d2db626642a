"""Exponents that Cubuk et al. 2017 (arXiv 1711.02846) print, and what the text says of them."""

from __future__ import annotations

MNIST = {"L2-FGSM": "1.1", "FGSM": "1.2", "PGD-20": "1.3", "step l.l.": "2.3"}
"""Figure 2, B by attack."""

SHUFFLED = {"L2-FGSM": "", "FGSM": "1.2", "PGD-20": "", "step l.l.": ""}
"""Figure 2, shuffled labels, training images."""

CIFAR = {"FGSM": "0.99"}
"""Figure 11, a ResNet-32."""

IMAGENET = {"FGSM": "0.9 to 1.1"}
"""Figure 1, fitted below :data:`IMAGENET_END`."""

IMAGENET_END = 0.2 / 255
"""Largest epsilon that Figure 1 fits."""

ONE_STEP_LL = {"step l.l.": "1.8 to 2.5"}
ANY_NET = {attack: "0.9 to 1.3" for attack in ("L2-FGSM", "FGSM", "PGD-20")} | ONE_STEP_LL
"""What the text says of all nets, by attack."""

TAILS = {2: 0, 3: 1, 4: 2}
"""Rank j -> exponent of the density of Δ_1j at small Δ: j - 2 (Figures 4, 6 and 13)."""

RANDOM_DRAWS = 5_000_000
"""Sets of random logits in Figure 4."""

CROSS_FIRST = 0.95
"""More of the FGSM attacks below 50/255 that succeed cross Δ_12 before any other Δ_1j."""

ENTROPY = {"mnist": 4.5, "cifar10": 3.0}
"""λ of the entropy term (Figures 5, 6 and 12)."""

ACCURATE = 0.8
"""Figure 10 shows random nets above this clean accuracy."""
