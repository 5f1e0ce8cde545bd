"""Trains a model to translate: python training/run_translation.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.devices import run_script
from tfheads.recipes.translation import TranslationArguments, translation

if __name__ == "__main__":
    run_script(TranslationArguments, translation)
