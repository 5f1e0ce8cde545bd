"""Hugging Face checkpoints in and out: weight tables, safetensors files, the Hub."""
