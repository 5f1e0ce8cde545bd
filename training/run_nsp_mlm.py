"""Pre-trains a model as BERT was: python training/run_nsp_mlm.py configs/FILE.yaml [--flag value ...], see --help."""

import tensorflow_start  # noqa: F401

from tfheads.recipes.devices import run_script
from tfheads.recipes.pre_training import PreTrainingArguments, pre_training

if __name__ == "__main__":
    run_script(PreTrainingArguments, pre_training)
