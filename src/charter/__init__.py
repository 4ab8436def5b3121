"""Charter: Constitutional AI and RLAIF, from a written constitution to an audited model."""

__version__ = "0.1.0"
