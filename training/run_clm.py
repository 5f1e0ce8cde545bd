"""Trains a language model: python training/run_clm.py configs/FILE.yaml [--flag value ...], see --help."""

import quiet_start  # noqa: F401

from tfheads.recipes.arguments import CausalLanguageModellingArguments
from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.language_modelling import run_causal_language_modelling

if __name__ == "__main__":
    run_causal_language_modelling(parse_or_exit(CausalLanguageModellingArguments))
