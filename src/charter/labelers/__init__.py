"""Who says "A is better than B", how it is asked, and how the answers become soft labels."""
