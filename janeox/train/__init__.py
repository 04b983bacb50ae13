"""Training: the loop, optimizers, several processes, states to go on from, and pre-training."""
