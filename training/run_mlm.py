"""Trains a language model: python training/run_mlm.py configs/FILE.yaml [--flag value ...], see --help."""

import quiet_start  # noqa: F401

from tfheads.recipes.arguments import MaskedLanguageModellingArguments
from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.language_modelling import run_masked_language_modelling

if __name__ == "__main__":
    run_masked_language_modelling(parse_or_exit(MaskedLanguageModellingArguments))
