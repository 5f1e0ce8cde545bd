"""Trains a model to pick a text: python training/run_multiple_choice.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.devices import run_script
from tfheads.recipes.multiple_choice import MultipleChoiceArguments, multiple_choice

if __name__ == "__main__":
    run_script(MultipleChoiceArguments, multiple_choice)
