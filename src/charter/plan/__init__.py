"""What a run will ask, generate, train and hold in memory, before it does: the stages' own functions on a few rows."""
