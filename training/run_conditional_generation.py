"""Trains a model to write texts: python training/run_conditional_generation.py configs/FILE.yaml [--flag value ...]."""

import quiet_start  # noqa: F401

from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.conditional_generation import ConditionalGenerationArguments, run_conditional_generation

if __name__ == "__main__":
    run_conditional_generation(parse_or_exit(ConditionalGenerationArguments))
