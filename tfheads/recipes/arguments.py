"""The arguments of the recipes, named as in Hugging Face's run_clm.py, run_mlm.py and TrainingArguments."""

import dataclasses
import difflib
import sys
from typing import Literal

import tensorflow as tf

from tfheads.distribute.strategies import STRATEGIES
from tfheads.metrics.classification import MEASURES
from tfheads.metrics.glue import TASKS
from tfheads.optimizers import OPTIMIZERS
from tfheads.recipes.command_line import argument
from tfheads.recipes.refused_flags import refusal
from tfheads.schedules import SCHEDULES, create_schedule


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


@dataclasses.dataclass(kw_only=True)
class ModelArguments:
    """Which model, and from what weights."""

    model_name_or_path: str | None = argument(None, "checkpoint to start from: a directory or an id on the Hub")
    model_type: str | None = argument(None, "family of a model with new weights, such as gpt2 or bert")
    config_name: str | None = argument(None, "directory or Hub id of the config of a model with new weights")
    config_overrides: dict[str, object] = argument({}, "config values to replace, such as n_layer=4,n_embd=256")
    tokenizer_name: str | None = argument(None, "directory or Hub id of the tokenizer; default: the model's")
    cache_dir: str | None = argument(None, "where downloads from the Hub are kept; default: the usual cache")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = argument(
        None, "dtype of the weights; auto: the checkpoint's, or float32; default: float32", also=["torch_dtype"]
    )
    model_revision: str = argument("main", "branch, tag or commit of the checkpoint")
    ignore_mismatched_sizes: bool = argument(False, "whether a new head replaces a checkpoint's that has other labels")
    token: str | None = argument(None, "Hub token for private models; default: the one of `hf auth login`", secret=True)

    def __post_init__(self):
        sources = [self.model_name_or_path, self.model_type, self.config_name]
        if sum(source is not None for source in sources) == 0:
            raise ValueError("give model_name_or_path (a checkpoint), or model_type or config_name (new weights)")
        if self.model_name_or_path and (self.config_name or self.config_overrides):
            given = "config_name" if self.config_name else "config_overrides"
            raise ValueError(f"{given} is for models with new weights, it cannot go with model_name_or_path")
        if self.tokenizer_name is None and self.model_name_or_path is None and self.config_name is None:
            raise ValueError("tokenizer_name must be given for a model_type, which says nothing about the tokenizer")


@dataclasses.dataclass(kw_only=True)
class DataArguments:
    """Which data."""

    dataset_name: str | None = argument(None, "dataset of the Hub, or a directory written by Dataset.save_to_disk")
    dataset_config_name: str | None = argument(None, "configuration of the dataset, such as wikitext-2-raw-v1")
    train_file: list[str] | None = argument(None, "JSON lines, CSV, TSV, parquet, text: files, a pattern or a folder")
    validation_file: list[str] | None = argument(None, "files to evaluate on, as in train_file")
    max_train_samples: int | None = argument(None, "use only this many rows of the training data", at_least=1)
    max_eval_samples: int | None = argument(None, "use only this many rows of the evaluation data", at_least=1)
    preprocessing_num_workers: int | None = argument(None, "processes that tokenise", also=["num_proc"], at_least=1)
    overwrite_cache: bool = argument(False, "tokenise again although the cache holds the result")

    def __post_init__(self):
        super().__post_init__()
        if not (self.has_named_dataset or self.files):
            raise ValueError("give dataset_name, or train_file / validation_file")
        if self.has_named_dataset and (self.train_file or self.validation_file):
            raise ValueError("give either dataset_name or train_file / validation_file, not both")

    @property
    def has_named_dataset(self) -> bool:
        """Whether the data comes from a dataset that has a name, rather than from files."""
        return self.dataset_name is not None

    @property
    def files(self) -> list[str]:
        """All files, patterns and folders that were given."""
        return [*(self.train_file or ()), *(self.validation_file or ())]


@dataclasses.dataclass(kw_only=True)
class CorpusArguments(DataArguments):
    """How plain text is read and divided."""

    text_column: str | None = argument(None, "column with the text, dots for nested ones (answers.text)")
    keep_linebreaks: bool = argument(True, "whether lines of .txt files keep their line break")
    streaming: bool = argument(False, "read the corpus while training; needs max_steps")
    validation_split_percentage: float = argument(
        5, "percent of the training text to evaluate on if there is no validation set", at_least=0, below=100
    )

    def __post_init__(self):
        super().__post_init__()
        if self.streaming and self.do_train and self.max_steps < 0:
            raise ValueError("max_steps must be given with streaming, as the length of the corpus is not known")


@dataclasses.dataclass(kw_only=True)
class LabelledDataArguments(DataArguments):
    """How labelled rows become batches."""

    test_file: list[str] | None = argument(None, "files to predict on, as in train_file; labels are not needed")
    max_predict_samples: int | None = argument(None, "use only this many rows of the data to predict on", at_least=1)
    max_seq_length: int | None = argument(
        None,
        "tokens of a row, what is beyond is cut; default: what the model has positions for, at most 128",
        also=["max_length"],
        at_least=2,
    )
    pad_to_max_length: bool = argument(False, "whether all batches have max_seq_length, so that XLA compiles once")
    bucket_lengths: list[int] | None = argument(
        None, "the lengths that batches are padded to, for each of which XLA compiles once; default: doubling from 16"
    )

    @property
    def files(self) -> list[str]:
        return [*super().files, *(self.test_file or ())]


@dataclasses.dataclass(kw_only=True)
class TrainingArguments:
    """How the model is trained, evaluated, tracked and saved."""

    refusal = staticmethod(refusal)

    output_dir: str = argument("", "where the model, the results and the checkpoints are written")
    overwrite_output_dir: bool = argument(False, "train from the start although output_dir holds a run")
    resume_from_checkpoint: str | None = argument(
        None, "checkpoint directory to continue from; default: the newest in output_dir"
    )
    do_train: bool = argument(False, "whether to train")
    do_eval: bool = argument(False, "whether to evaluate at the end")
    seed: int = argument(42, "of new weights, dropout, masks and the order of the data", at_least=0)
    data_seed: int | None = argument(None, "of masks and the order of the data; default: seed", at_least=0)

    strategy: Literal[STRATEGIES] = argument("auto", "strategy of tf.distribute; auto: by the environment")
    num_replicas: int | None = argument(None, "devices of each process to use; default: all", at_least=1)
    tpu_name: str | None = argument(None, "name of the TPU of the strategy tpu; default: TPU_NAME")
    per_device_train_batch_size: int = argument(8, "rows of a batch on each device", at_least=1)
    per_device_eval_batch_size: int = argument(8, "rows of an evaluation batch on each device", at_least=1)
    gradient_accumulation_steps: int = argument(1, "batches of per_device_train_batch_size for one update", at_least=1)
    global_train_batch_size: int | None = argument(
        None, "rows of one update, whatever the devices are, instead of per_device_train_batch_size", at_least=1
    )
    num_train_epochs: float = argument(3.0, "passes over the training data", above=0)
    max_steps: int = argument(-1, "updates in all, instead of num_train_epochs; -1 for no limit", at_least=-1)
    learning_rate: float = argument(5e-5, "highest learning rate", at_least=0)
    lr_scheduler_type: Literal[tuple(SCHEDULES)] = argument("linear", "course of the learning rate after the warm-up")
    lr_scheduler_kwargs: dict[str, object] = argument({}, "options of that course, such as num_cycles=3")
    warmup_ratio: float = argument(0.0, "part of the steps in which the learning rate rises", at_least=0, at_most=1)
    warmup_steps: float = argument(
        0, "steps in which it rises, or below 1 the part of the steps, instead of warmup_ratio", at_least=0
    )
    optim: Literal[tuple(OPTIMIZERS)] = argument("adamw_torch", "optimizer; both names of AdamW mean the same")
    weight_decay: float = argument(0.0, "decay, on matrices only", at_least=0)
    adam_beta1: float = argument(0.9, "AdamW's mean of gradients; also Lion's", at_least=0, below=1)
    adam_beta2: float = argument(0.999, "AdamW's mean of squared gradients; also Lion's", at_least=0, below=1)
    adam_epsilon: float = argument(1e-8, "AdamW's epsilon", above=0)
    max_grad_norm: float = argument(1.0, "gradients are clipped to this norm; 0 for no clipping", at_least=0)
    bf16: bool = argument(False, "compute in bfloat16 with weights in float32 (mixed_bfloat16)")
    fp16: bool = argument(False, "compute in float16 with a scaled loss, weights in float32 (mixed_float16)")
    gradient_checkpointing: bool = argument(
        False, "compute inner values again for the gradient, which takes less memory", also=["activation_checkpointing"]
    )
    jit_compile: bool = argument(True, "compile forward and backward with XLA", also=["xla"])
    steps_per_execution: int = argument(1, "steps that run before Python sees the results", at_least=1)

    logging_strategy: Literal["no", "steps", "epoch"] = argument("steps", "when the log gets an entry of the loss")
    logging_steps: int = argument(500, "steps between two entries of the log", at_least=1)
    logging_first_step: bool = argument(False, "whether the first step has an entry in any case")
    eval_strategy: Literal["no", "steps", "epoch"] = argument(
        "no", "when to evaluate while training", also=["evaluation_strategy"]
    )
    eval_on_start: bool = argument(False, "whether to evaluate before the first step")
    eval_steps: int | None = argument(None, "steps between evaluations; default: logging_steps", at_least=1)
    save_strategy: Literal["no", "steps", "epoch"] = argument("steps", "when to save the state of the training")
    save_steps: int = argument(500, "steps between saved states", at_least=1)
    save_total_limit: int | None = argument(None, "how many saved states are kept; default: all", at_least=1)
    load_best_model_at_end: bool = argument(False, "whether the weights of the best evaluation are kept in the end")
    metric_for_best_model: str | None = argument(None, "what is best: loss, accuracy, f1, ...; default: the loss")
    greater_is_better: bool | None = argument(None, "whether more of it is better; default: not for losses")
    report_to: list[Literal["none", "wandb", "tensorboard", "all"]] = argument(["none"], "trackers that get the log")
    sample_prompts: list[str] = argument([], "texts that the model goes on with, or whose masks it fills, for trackers")
    run_name: str | None = argument(None, "name of the run in Weights & Biases; default: output_dir's last part")

    push_to_hub: bool = argument(False, "upload the model to the Hub while training and at the end")
    hub_model_id: str | None = argument(
        None, "repository, such as me/my-model; default: output_dir's last part", also=["push_to_hub_model_id"]
    )
    hub_strategy: Literal["end", "every_save"] = argument("every_save", "when to upload")
    hub_token: str | None = argument(
        None, "token for the upload; default: the one of `hf auth login`", also=["push_to_hub_token"], secret=True
    )
    hub_private_repo: bool | None = argument(None, "whether a new repository is private")

    def __post_init__(self):
        super().__post_init__()
        if not self.output_dir:
            raise ValueError("output_dir must be given: the directory for the model and the results")
        if not self.has_work:
            raise ValueError("there is nothing to do: set do_train or do_eval")
        if self.bf16 and self.fp16:
            raise ValueError("give bf16 or fp16, not both")
        if self.dtype not in (None, "auto"):
            self.policy_for(self.dtype)
        if self.max_steps == 0:
            raise ValueError("max_steps must be at least 1, or -1 for no limit, got 0")
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError("give warmup_ratio or warmup_steps, not both")
        steps = self.max_steps if self.max_steps > 0 else sys.maxsize
        # Only to say at once which of the options cannot be.
        create_schedule(self.lr_scheduler_type, self.learning_rate, num_train_steps=steps, **self.lr_scheduler_kwargs)
        if self.load_best_model_at_end and self.eval_strategy == "no":
            raise ValueError("load_best_model_at_end needs evaluations to choose from: set eval_strategy")
        if self.metric_for_best_model and not self.load_best_model_at_end:
            raise ValueError("metric_for_best_model is given but load_best_model_at_end is not set")
        if self.push_to_hub and not self.do_train:
            raise ValueError("push_to_hub uploads what was trained: set do_train, or use model.push_to_hub")
        if self.hub_model_id and not self.push_to_hub:
            raise ValueError("hub_model_id is given but push_to_hub is not set")

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return self.do_train or self.do_eval

    @property
    def evaluates(self) -> bool:
        """Whether evaluation data is needed."""
        return self.do_eval or self.eval_strategy != "no" or self.eval_on_start

    @property
    def rows_per_step(self) -> int:
        """Rows of one update, on all replicas of the current strategy."""
        each = self.per_device_train_batch_size * self.gradient_accumulation_steps
        return self.global_train_batch_size or each * _replicas()

    @property
    def rows_per_evaluation_step(self) -> int:
        """Rows of a batch to evaluate on, on all replicas of the current strategy."""
        return self.per_device_eval_batch_size * _replicas()

    @property
    def order_seed(self) -> int:
        """The seed of masks and the order of the data."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def policy(self) -> str:
        """Keras' dtype policy, where the checkpoint does not decide."""
        return self.policy_for("float32" if self.dtype in (None, "auto") else self.dtype)

    def policy_for(self, weights: str) -> str:
        """Keras' dtype policy for weights of a dtype.

        Raises:
            ValueError: bf16 or fp16, which need float32 weights (or for bf16 bfloat16 ones, in which all is computed).
        """
        flag, computed = ("bf16", "bfloat16") if self.bf16 else ("fp16", "float16")
        if not (self.bf16 or self.fp16) or (flag, weights) == ("bf16", "bfloat16"):
            return weights
        if weights != "float32":
            raise ValueError(f"dtype must be float32 with {flag}, which keeps weights in it, got {weights}")
        return f"mixed_{computed}"

    def public(self) -> dict:
        """All arguments as plain values, without tokens: what may go into logs and files."""
        secret = {field.name for field in dataclasses.fields(self) if field.metadata["secret"]}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in secret}


@dataclasses.dataclass(kw_only=True)
class FineTuningArguments(TrainingArguments, LabelledDataArguments, ModelArguments):
    """Prediction."""

    do_predict: bool = argument(False, "whether to write predictions for the test data at the end")

    def __post_init__(self):
        super().__post_init__()
        if self.do_predict and not (self.test_file or self.has_named_dataset):
            raise ValueError("do_predict needs data: give test_file")

    @property
    def has_work(self) -> bool:
        return super().has_work or self.do_predict


@dataclasses.dataclass(kw_only=True)
class CausalRowArguments:
    """How the text is cut into rows."""

    block_size: int | None = argument(
        None, "tokens of a row; default: what the model has positions for, at most 1024", at_least=2
    )
    append_end_of_text: bool = argument(False, "whether the tokenizer's eos_token is put after each row of the text")
    keep_documents_apart: bool = argument(False, "whether a row never crosses from one document to the next")


@dataclasses.dataclass(kw_only=True)
class MaskedRowArguments:
    """How the text is cut into rows and masked."""

    max_seq_length: int | None = argument(
        None,
        "tokens of a row; default: what the model has positions for, at most 1024",
        also=["block_size"],
        at_least=4,
    )
    line_by_line: bool = argument(False, "whether each row of the text stays a row, cut at max_seq_length")
    pad_to_max_length: bool = argument(
        False, "whether such rows are padded to max_seq_length, so that XLA compiles once, not to 16, 32, ..."
    )
    mlm_probability: float = argument(0.15, "part of the tokens to predict", above=0, below=1)
    whole_word_mask: bool = argument(False, "whether all pieces of a word are masked together")


@dataclasses.dataclass(kw_only=True)
class CausalLanguageModellingArguments(CausalRowArguments, TrainingArguments, CorpusArguments, ModelArguments):
    """Trains a model to predict the next token: with new weights or from a checkpoint, on any text."""


@dataclasses.dataclass(kw_only=True)
class MaskedLanguageModellingArguments(MaskedRowArguments, TrainingArguments, CorpusArguments, ModelArguments):
    """Trains a model to fill masked tokens: with new weights or from a checkpoint, on any text."""


@dataclasses.dataclass(kw_only=True)
class SentenceArguments:
    """Which task, or which columns of own data."""

    task_name: str | None = argument(None, "task of GLUE, which brings its data, its columns and its measures")
    sentence1_column_name: str | None = argument(None, "column with the text; default: sentence1, or the first text")
    sentence2_column_name: str | None = argument(None, "column with the second text of a pair; default: sentence2")
    label_column_name: str = argument("label", "column with the labels: names, numbers, or for a regression fractions")
    metric_name: list[str] | None = argument(
        None, "what is measured: accuracy, f1, matthews_correlation, pearson, spearmanr, mse; default: by the task"
    )

    def __post_init__(self):
        if self.task_name is not None:
            self.task_name = self.task_name.lower()
            if self.task_name not in TASKS:
                near = difflib.get_close_matches(self.task_name, TASKS, n=1, cutoff=0.0)[0]
                raise ValueError(f"task_name {self.task_name!r} is not known, the nearest is {near!r}")
            if self.dataset_name is not None:
                raise ValueError("give task_name or dataset_name, not both")
        for name in self.metric_name or ():
            if name not in MEASURES:
                raise ValueError(f"metric_name must be among {', '.join(MEASURES)}, got {name!r}")
        if self.sentence2_column_name and not self.sentence1_column_name:
            raise ValueError("sentence2_column_name is given without sentence1_column_name")
        super().__post_init__()

    @property
    def has_named_dataset(self) -> bool:
        return super().has_named_dataset or (self.task_name is not None and not self.files)


@dataclasses.dataclass(kw_only=True)
class TextClassificationArguments(SentenceArguments, FineTuningArguments):
    """Trains a model to tell the class of a text or of a pair, or a number: a task of GLUE, or own files."""


@dataclasses.dataclass(kw_only=True)
class WordLabelArguments:
    """Which labels of which words."""

    task_name: Literal["ner", "pos", "chunk"] = argument("ner", "which labels of a dataset that has several")
    text_column_name: str | None = argument(None, "column with lists of words; default: tokens")
    label_column_name: str | None = argument(
        None, "column with lists of labels, names or numbers; default: ner_tags, or that of task_name"
    )
    label_all_tokens: bool = argument(False, "whether all pieces of a word are learned, instead of the first")
    return_entity_level_metrics: bool = argument(False, "whether each type of entity is measured by itself too")


@dataclasses.dataclass(kw_only=True)
class TokenClassificationArguments(WordLabelArguments, FineTuningArguments):
    """Trains a model to label words: names, parts of speech, chunks."""


@dataclasses.dataclass(kw_only=True)
class AnswerArguments:
    """How long contexts are cut, and how answers are chosen."""

    doc_stride: int = argument(128, "tokens that two parts of a long context share", at_least=0)
    version_2_with_negative: bool = argument(False, "whether a question may have no answer, as in SQuAD 2")
    null_score_diff_threshold: float = argument(0.0, 'by how much "no answer" must be above the best answer')
    n_best_size: int = argument(20, "how many candidates are kept", at_least=1)
    max_answer_length: int = argument(30, "tokens of the longest answer", at_least=1)


@dataclasses.dataclass(kw_only=True)
class QuestionAnsweringArguments(AnswerArguments, FineTuningArguments):
    """Trains a model to find answers in a text: SQuAD, or own files."""
