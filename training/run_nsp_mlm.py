"""Pre-trains a model as BERT was: python training/run_nsp_mlm.py configs/FILE.yaml [--flag value ...], see --help."""

import quiet_start  # noqa: F401

from tfheads.recipes.command_line import parse_or_exit
from tfheads.recipes.pre_training import PreTrainingArguments, run_pre_training

if __name__ == "__main__":
    run_pre_training(parse_or_exit(PreTrainingArguments))
