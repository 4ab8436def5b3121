"""A run's data in the formats of others."""
