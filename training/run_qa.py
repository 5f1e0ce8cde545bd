"""Trains a model to find answers in a text: python training/run_qa.py configs/FILE.yaml [--flag value ...]."""

import quiet_start  # noqa: F401

from tfheads.recipes.arguments import QuestionAnsweringArguments
from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.question_answering import run_question_answering

if __name__ == "__main__":
    run_question_answering(parse_or_exit(QuestionAnsweringArguments))
