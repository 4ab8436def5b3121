"""Is a labeler fit to label? Pairs with a known answer, measures of its faults, attacks, and a verdict."""
