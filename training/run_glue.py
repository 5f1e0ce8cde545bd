"""Trains a model on a task of GLUE or own texts: python training/run_glue.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.arguments import TextClassificationArguments
from tfheads.recipes.devices import run_script
from tfheads.recipes.text_classification import text_classification

if __name__ == "__main__":
    run_script(TextClassificationArguments, text_classification)
