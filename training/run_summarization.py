"""Trains a model to summarise texts: python training/run_summarization.py configs/FILE.yaml [--flag value ...]."""

import quiet_start  # noqa: F401

from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.summarization import SummarizationArguments, run_summarization

if __name__ == "__main__":
    run_summarization(parse_or_exit(SummarizationArguments))
