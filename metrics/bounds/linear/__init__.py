"""Lower bounds of margins by linear relaxation of what bends, for small nets.

Sources: Zhang et al. 2018 (CROWN, arXiv 1811.00866), Gowal et al. 2018 (interval bounds, arXiv
1810.12715), Xu et al. 2020 (general graphs, arXiv 2002.12920).
"""

from metrics.bounds.linear.bisection import l2_from_linf, linf_from_l2, radius
from metrics.bounds.linear.support import supports
from metrics.bounds.linear.worst_margins import certified, margins

__all__ = ["certified", "l2_from_linf", "linf_from_l2", "margins", "radius", "supports"]
