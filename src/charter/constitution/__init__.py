"""Constitutions: read, draw from, check, compare, import and write."""
