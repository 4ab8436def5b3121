"""Prompts and preferences, in and out of the formats that others use."""
