"""Trains a model to pick a text: python training/run_multiple_choice.py configs/FILE.yaml [--flag value ...]."""

import quiet_start  # noqa: F401

from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.multiple_choice import MultipleChoiceArguments, run_multiple_choice

if __name__ == "__main__":
    run_multiple_choice(parse_or_exit(MultipleChoiceArguments))
