"""Trains a language model: python training/run_mlm.py configs/FILE.yaml [--flag value ...], see --help."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.arguments import MaskedLanguageModellingArguments
from tfheads.recipes.devices import run_script
from tfheads.recipes.language_modelling import masked_language_modelling

if __name__ == "__main__":
    run_script(MaskedLanguageModellingArguments, masked_language_modelling)
