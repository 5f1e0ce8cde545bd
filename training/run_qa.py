"""Trains a model to find answers in a text: python training/run_qa.py configs/FILE.yaml [--flag value ...]."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.arguments import QuestionAnsweringArguments
from tfheads.recipes.devices import run_script
from tfheads.recipes.question_answering import question_answering

if __name__ == "__main__":
    run_script(QuestionAnsweringArguments, question_answering)
