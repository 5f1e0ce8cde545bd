"""Trains a model to translate: python training/run_translation.py configs/FILE.yaml [--flag value ...]."""

import quiet_start  # noqa: F401

from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.translation import TranslationArguments, run_translation

if __name__ == "__main__":
    run_translation(parse_or_exit(TranslationArguments))
