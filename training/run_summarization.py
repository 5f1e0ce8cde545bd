"""Trains a model to summarise texts: python training/run_summarization.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.devices import run_script
from tfheads.recipes.summarization import SummarizationArguments, summarization

if __name__ == "__main__":
    run_script(SummarizationArguments, summarization)
