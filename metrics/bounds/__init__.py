"""Lower bounds on the smallest perturbation that changes what a model says."""
