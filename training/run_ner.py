"""Trains a model to label words, such as names: python training/run_ner.py configs/FILE.yaml [--flag value ...]."""

import quiet_start  # noqa: F401

from tfheads.recipes.arguments import TokenClassificationArguments
from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.token_classification import run_token_classification

if __name__ == "__main__":
    run_token_classification(parse_or_exit(TokenClassificationArguments))
