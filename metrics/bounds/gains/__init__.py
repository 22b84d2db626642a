"""How much each kind of layer stretches a perturbation, one kind a file."""
