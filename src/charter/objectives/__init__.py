"""Pure tensor mathematics: no files, no configuration, no model. Each formula names its source."""
