"""The two-ball models of Sutton et al.: probabilities, the paper's bounds, and Monte Carlo."""
