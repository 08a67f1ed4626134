"""Training: the loop, its state, the run folder and its page; nothing here depends on a particular recipe."""
