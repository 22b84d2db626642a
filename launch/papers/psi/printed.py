"""The numbers that the Ψ paper prints: what a reproduction is set beside."""

from __future__ import annotations

from collections.abc import Mapping

CHANNELS = (32, 64, 128, 256)

TABLE_1 = {18: 781.2, 34: 790.7, 50: 854.4, 101: 893.2, 152: 846.5}
"""Ψ̂ of trained ResNets: depth -> Ψ̂."""

_TABLE_2 = {
    2: (0.749, 0.523, 0.651, 0.560),
    4: (1.021, 0.695, 0.775, 0.610),
    8: (2.788, 2.134, 1.505, 1.276),
    16: (15.491, 12.935, 8.423, 7.123),
    32: (109.340, 135.472, 98.834, 92.404),
    64: (96.037, 63.785, 60.443, 48.721),
}
_TABLE_3 = {
    2: (578.602, 610.207, 586.503, 576.759),
    4: (1470.399, 1658.209, 1631.561, 1695.993),
    8: (2144.418, 2224.467, 2536.745, 2370.648),
    16: (2361.251, 2401.381, 2485.030, 2846.418),
    32: (3162.568, 3018.758, 2987.640, 3256.967),
    64: (2045.765, 2213.575, 3103.335, 2471.823),
}

Cells = dict[tuple[int, int], float]


def _cells(table: Mapping[int, tuple[float, ...]]) -> Cells:
    return {(d, c): v for d, row in table.items() for c, v in zip(CHANNELS, row, strict=True)}


TABLE_2: Cells = _cells(_TABLE_2)
"""Ψ̂ of untrained nets on noise: (depth, channels) -> Ψ̂."""

TABLE_3: Cells = _cells(_TABLE_3)
"""Ψ̂ of nets trained on Food-101: (depth, channels) -> Ψ̂."""

CORRELATION = -0.911
"""Of Ψ̂ and post-attack accuracy at r = 0.01 (Figure 7)."""

RESNET18_GROWTH, RESNET18_LAMBDA = 747.0, 0.368
"""Drift of the output over that of the input, and ln of it over 18 layers (Figure 2)."""
