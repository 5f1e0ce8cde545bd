"""Trains a model on long texts: python training/run_document_classification.py configs/FILE.yaml [--flag value ...]."""

import quiet_start  # noqa: F401

from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.document_classification import DocumentClassificationArguments, run_document_classification

if __name__ == "__main__":
    run_document_classification(parse_or_exit(DocumentClassificationArguments))
