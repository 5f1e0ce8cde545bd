"""Trains a model to label words, such as names: python training/run_ner.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.arguments import TokenClassificationArguments
from tfheads.recipes.devices import run_script
from tfheads.recipes.token_classification import token_classification

if __name__ == "__main__":
    run_script(TokenClassificationArguments, token_classification)
