"""What bounds cost: seconds of a chain and its layers, and a bracket beside the training.

    python bench/bounds.py [--images N] [--rounds N] [--train N]

Everything runs in one process on one thread, in turn; ratios are of CPU time in the same round.
"""
