"""Trains a language model: python training/run_clm.py configs/FILE.yaml [--flag value ...], see --help."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.arguments import CausalLanguageModellingArguments
from tfheads.recipes.devices import run_script
from tfheads.recipes.language_modelling import causal_language_modelling

if __name__ == "__main__":
    run_script(CausalLanguageModellingArguments, causal_language_modelling)
