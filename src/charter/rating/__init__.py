"""``charter rate``: a local web page where people label response pairs."""
