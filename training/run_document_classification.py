"""Trains a model on long texts: python training/run_document_classification.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.devices import run_script
from tfheads.recipes.document_classification import DocumentClassificationArguments, document_classification

if __name__ == "__main__":
    run_script(DocumentClassificationArguments, document_classification)
