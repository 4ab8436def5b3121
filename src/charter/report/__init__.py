"""The page about a run: one self-contained HTML file, made from the run folder's files alone."""
