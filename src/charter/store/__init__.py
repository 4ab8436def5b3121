"""Where a run lives on disk: hashes, atomic JSON files, the run folder and the ledger of model answers."""
