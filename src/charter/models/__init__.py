"""Talking to language models: one protocol; local Hugging Face models, endpoints, vLLM."""
