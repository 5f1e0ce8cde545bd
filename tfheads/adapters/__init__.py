"""Adapters: small layers that are trained beside a frozen model, in PEFT's format."""
