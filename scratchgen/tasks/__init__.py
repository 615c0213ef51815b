"""Training: for each model a task, whose ``train_step`` is the algorithm of its paper."""
