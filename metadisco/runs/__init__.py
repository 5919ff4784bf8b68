"""The host's side of one run: the loop, its folder, checkpoints of the train state, progress, signals."""
