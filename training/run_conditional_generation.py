"""Trains a model to write texts: python training/run_conditional_generation.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.conditional_generation import ConditionalGenerationArguments, conditional_generation
from tfheads.recipes.devices import run_script

if __name__ == "__main__":
    run_script(ConditionalGenerationArguments, conditional_generation)
