"""The loops: supervised fine-tuning, reward model, policy optimisation; packing, optimiser, checkpoints."""
