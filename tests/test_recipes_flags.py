"""What becomes of the recipes' flags: each one's value where it arrives, without a training."""

import types

import pytest
import tensorflow as tf

from tests import tiny_models
from tests.fixtures import tiny_tokenizers
from tfheads.callbacks.progress_log import is_due
from tfheads.models import ForCausalLM
from tfheads.optimizers import Lion
from tfheads.recipes import language_modelling, models, training
from tfheads.recipes.arguments import CausalLanguageModellingArguments, MaskedLanguageModellingArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.models import load_model
from tfheads.recipes.run_log import RunLog
from tfheads.recipes.training import TrainingRun


def parsed(cls: type, **changes):
    """Arguments from flags, all of which are given as text."""
    values = {"model_name_or_path": "model", "train_file": "a.txt", "output_dir": "out", "do_train": "true", **changes}
    return parse(cls, [f"--{name}={value}" for name, value in values.items() if value is not None])


def causal(**changes) -> CausalLanguageModellingArguments:
    return parsed(CausalLanguageModellingArguments, **changes)


class StandIn:
    """A model that keeps what it was told."""

    rematerialises = False

    def compile(self, **options):
        self.compiled = options

    def gradient_checkpointing_enable(self):
        self.rematerialises = True


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model that is stored in bfloat16, with its directory and its tokenizer."""
    directory = tmp_path_factory.mktemp("checkpoint")
    model = ForCausalLM.from_config(tiny_models.gpt2_config(vocab_size=283), dtype="bfloat16", seed=0)
    model.save_pretrained(directory)
    return types.SimpleNamespace(directory=directory, model=model, tokenizer=tiny_tokenizers.byte_level_bpe())


def run_of(arguments, **changes) -> TrainingRun:
    """A run of 10 updates an epoch on no data."""
    values = {"batches": None, "updates_per_epoch": 10, "evaluation": None, "train_rows": 0, "dataset": []}
    return TrainingRun(arguments, StandIn(), None, **{**values, **changes})


def test_the_optimizer():
    adam = {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-4, "max_grad_norm": 0.5, "weight_decay": 0.3}
    course = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": "lr_end=1e-6,power=2", "warmup_ratio": 0.1}
    optimizer = run_of(causal(learning_rate=1e-3, **adam, **course)).model.compiled["optimizer"]
    found = {name: getattr(optimizer, name) for name in ("weight_decay", "beta_1", "beta_2", "epsilon")}
    assert found == {"weight_decay": 0.3, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-4}
    assert optimizer.global_clipnorm == 0.5
    schedule = {"learning_rate": 1e-3, "warmup_steps": 3, "num_train_steps": 30, "lr_end": 1e-6, "power": 2}
    assert optimizer._learning_rate.get_config() == schedule
    other = run_of(causal(max_grad_norm=0, optim="lion_32bit", adam_beta1=0.8)).model.compiled["optimizer"]
    assert isinstance(other, Lion) and other.global_clipnorm is None and other.beta_1 == 0.8
    steps = {"max_steps": 7, "warmup_steps": 2, "lr_scheduler_type": "constant_with_warmup"}
    schedule = run_of(causal(**steps)).model.compiled["optimizer"]._learning_rate
    assert schedule.get_config() == {"learning_rate": 5e-5, "warmup_steps": 2, "num_train_steps": 7}


def test_how_a_step_is_compiled():
    model = run_of(causal(steps_per_execution=5, gradient_accumulation_steps=2, jit_compile="false")).model
    del model.compiled["optimizer"]
    assert model.compiled == {"steps_per_execution": 5, "gradient_accumulation_steps": 2, "jit_compile": False}
    assert not model.rematerialises
    for name in ("gradient_checkpointing", "activation_checkpointing"):
        assert run_of(causal(**{name: "true"})).model.rematerialises


def test_an_evaluation_needs_no_optimizer():
    course = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": '{"num_decay_steps": 50}'}
    with pytest.raises(ValueError, match="num_decay_steps must be between 0 and the 30 steps"):
        run_of(causal(**course))
    assert run_of(causal(**course, do_train="false", do_eval="true")).model.compiled["optimizer"] is None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"logging_steps": 10}, [10, 20]),
        ({"logging_steps": 10, "logging_first_step": "true"}, [1, 10, 20]),
        ({"logging_strategy": "no"}, []),
        ({"logging_strategy": "no", "logging_first_step": "true"}, [1]),
        ({"logging_strategy": "epoch", "logging_steps": 3}, [10, 20, 25]),  # the last epoch ends early
    ],
)
def test_the_log_has_transformers_entries(flags, expected, tmp_path):
    run = run_of(causal(report_to="tensorboard", max_steps=25, output_dir=tmp_path, **flags))
    (tracker,) = run._make_trackers()
    of_tracker = {"every": tracker.logging_steps, "also": tracker.logging_also}
    assert [step for step in range(1, 26) if is_due(step - 1, step, **of_tracker)] == expected
    log = RunLog(tmp_path, steps_per_epoch=10, **run._logged_updates())
    step, losses = tf.Variable(0), types.SimpleNamespace(total=tf.Variable(0.0), count=tf.Variable(0.0))
    optimizer = types.SimpleNamespace(iterations=step, learning_rate=1e-3)
    log.set_model(types.SimpleNamespace(optimizer=optimizer, _loss_tracker=losses))
    log.begin(0)
    for number in range(25):
        log.on_train_batch_begin(number)
        losses.total.assign_add(number)
        losses.count.assign_add(1.0)
        step.assign_add(1)
        log.on_train_batch_end(number)
    assert [entry["step"] for entry in log.entries] == expected
    for before, entry in zip([0, *expected], log.entries, strict=False):
        assert entry["loss"] == pytest.approx((before + entry["step"] - 1) / 2)  # the mean since the last entry


@pytest.mark.parametrize(
    ("flags", "policy"),
    [
        ({}, "float32"),
        ({"bf16": "true"}, "mixed_bfloat16"),
        ({"fp16": "true", "dtype": "float32"}, "mixed_float16"),
        ({"torch_dtype": "bfloat16"}, "bfloat16"),  # the name in older releases
        ({"dtype": "bfloat16", "bf16": "true"}, "bfloat16"),
        ({"dtype": "float16"}, "float16"),
        ({"dtype": "auto"}, "bfloat16"),  # the checkpoint's
        ({"dtype": "auto", "bf16": "true"}, "bfloat16"),
    ],
)
def test_the_dtype_of_a_checkpoint(flags, policy, checkpoint):
    made = []
    task = types.SimpleNamespace(from_pretrained=lambda name, **options: made.append(options) or checkpoint.model)
    load_model(causal(model_name_or_path=checkpoint.directory, **flags), checkpoint.tokenizer, task)
    assert made[0]["dtype"] == policy


def test_what_mixed_precision_needs(checkpoint):
    with pytest.raises(ValueError, match="dtype must be float32 with fp16, which keeps weights in it, got bfloat16"):
        causal(dtype="bfloat16", fp16="true")
    stored = causal(model_name_or_path=checkpoint.directory, dtype="auto", fp16="true")
    with pytest.raises(ValueError, match="dtype must be float32 with fp16, which keeps weights in it, got bfloat16"):
        load_model(stored, checkpoint.tokenizer, ForCausalLM)
    new = {"model_name_or_path": None, "model_type": "gpt2", "tokenizer_name": "t", "dtype": "auto", "bf16": "true"}
    assert causal(**new).policy == "mixed_bfloat16"


def recorded(result=None):
    """A function that keeps how it was called, in `.calls`, and gives a result."""

    def record(*arguments, **options):
        record.calls.append((arguments, options))
        return result

    record.calls = []
    return record


@pytest.fixture
def preparation(monkeypatch, checkpoint):
    """The functions that prepare a language model's run, recorded: nothing is read, loaded or tokenised."""
    text = types.SimpleNamespace()
    source = types.SimpleNamespace(rows=24, block_size=8, steps_per_epoch=lambda size: 24 // size)
    model = StandIn()
    model.backbone = types.SimpleNamespace(length_limit=32)
    results = {
        "load_tokenizer": checkpoint.tokenizer,
        "load_text": {"train": text, "validation": text},
        "load_model": model,
        "causal_blocks": source,
        "masked_blocks": source,
    }
    found = {name: recorded(result) for name, result in results.items()}
    for name, function in found.items():
        monkeypatch.setattr(language_modelling, name, function)
    found["set_random_seed"] = recorded()
    monkeypatch.setattr(language_modelling.keras.utils, "set_random_seed", found["set_random_seed"])
    found["masking"] = recorded()
    monkeypatch.setattr(language_modelling.TokenMasking, "from_tokenizer", found["masking"])
    return types.SimpleNamespace(**found, source=source)


def test_the_text(preparation, tmp_path):
    flags = {"train_file": None, "dataset_name": "wikitext", "dataset_config_name": "raw", "streaming": "true"}
    flags |= {"validation_split_percentage": 7, "text_column": "page", "keep_linebreaks": "false", "max_steps": 3}
    flags |= {"preprocessing_num_workers": 3, "cache_dir": tmp_path, "token": "hf_secret", "output_dir": tmp_path}
    language_modelling.causal_language_modelling(causal(**flags))
    ((arguments, options),) = preparation.load_text.calls
    assert arguments == ("wikitext", "raw")
    assert options == {
        "train_file": None,
        "validation_file": None,
        "validation_split_percentage": 7,
        "text_column": "page",
        "keep_linebreaks": False,
        "streaming": True,
        "num_proc": 3,
        "cache_dir": str(tmp_path),
        "token": "hf_secret",
    }


def test_the_rows_of_causal_models(preparation, tmp_path):
    flags = {"block_size": 12, "append_end_of_text": "true", "keep_documents_apart": "true", "num_proc": 2}
    language_modelling.causal_language_modelling(causal(output_dir=tmp_path, **flags))
    language_modelling.causal_language_modelling(causal(output_dir=tmp_path))
    given, usual = (options for _, options in preparation.causal_blocks.calls)
    assert given == {"packing": "documents", "append_end_of_text": True, "maximum": 32, "num_proc": 2}
    assert usual == {"packing": "concatenate", "append_end_of_text": False, "maximum": 32, "num_proc": None}
    assert [arguments[2] for arguments, _ in preparation.causal_blocks.calls] == [12, None]


def test_the_rows_and_the_masks_of_masked_models(preparation, tmp_path):
    flags = {"max_seq_length": 12, "line_by_line": "true", "pad_to_max_length": "true", "num_proc": 2}
    flags |= {"whole_word_mask": "true", "mlm_probability": 0.3, "seed": 5, "data_seed": 6}
    for changes in (flags, {"seed": 7}):
        arguments = parsed(MaskedLanguageModellingArguments, output_dir=tmp_path, **changes)
        language_modelling.masked_language_modelling(arguments)
    given, usual = (options for _, options in preparation.masked_blocks.calls)
    common = {"line_by_line": True, "whole_word": True, "maximum": 32, "num_proc": 2}
    assert given == {**common, "bucket_lengths": ()}
    lengths = tuple(2**power for power in range(4, 24))
    expected = {"line_by_line": False, "whole_word": False, "maximum": 32, "num_proc": None, "bucket_lengths": lengths}
    assert usual == expected
    assert [arguments[2] for arguments, _ in preparation.masked_blocks.calls] == [12, None]
    masks = [options for _, options in preparation.masking.calls]
    assert masks[0] == {"probability": 0.3, "whole_word": True, "seed": 6}
    assert masks[1] == {"probability": 0.15, "whole_word": False, "seed": 7}


def test_the_seeds(preparation, checkpoint, tmp_path):
    orders = []
    for flags in ({"seed": 5}, {"seed": 5, "data_seed": 6}):
        arguments = causal(output_dir=tmp_path, per_device_train_batch_size=4, **flags)
        run = language_modelling.causal_language_modelling(arguments)
        preparation.source.batches = recorded()
        run.batches(2, 3)
        ((size,), options) = preparation.source.batches.calls[0]
        orders.append(options["seed"])
        assert (size, options["epoch"], options["start_step"]) == (4, 2, 3)
        task = types.SimpleNamespace(from_pretrained=recorded(checkpoint.model))
        load_model(arguments, checkpoint.tokenizer, task)
        assert task.from_pretrained.calls[0][1]["seed"] == 5
    assert orders == [5, 6]
    assert [arguments for arguments, _ in preparation.set_random_seed.calls] == [(5,), (5,)]


def test_where_the_checkpoint_is_fetched(checkpoint, monkeypatch, tmp_path):
    flags = {"model_revision": "v2", "token": "hf_secret", "cache_dir": tmp_path, "ignore_mismatched_sizes": "true"}
    task = types.SimpleNamespace(from_pretrained=recorded(checkpoint.model))
    load_model(causal(**flags), checkpoint.tokenizer, task)
    where = {"revision": "v2", "token": "hf_secret", "cache_dir": str(tmp_path)}
    options = {"dtype": "float32", "seed": 42, "ignore_mismatched_sizes": True}
    assert task.from_pretrained.calls == [(("model",), {**where, **options})]
    monkeypatch.setattr(models.tokenizers, "load_tokenizer", recorded())
    models.load_tokenizer(causal(**flags))
    models.load_tokenizer(causal(**flags, model_name_or_path=None, model_type="gpt2", tokenizer_name="other"))
    assert models.tokenizers.load_tokenizer.calls == [(("model",), where), (("other",), where)]


def test_what_a_run_goes_on_from(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "fit_resumable", recorded())
    for name in (None, "states/checkpoint-4"):
        run = run_of(causal(output_dir=tmp_path, max_steps=7, resume_from_checkpoint=name))
        run.model.optimizer = types.SimpleNamespace(iterations=tf.Variable(7))
        run.model.distribute_strategy = tf.distribute.get_strategy()
        run.log, run.trackers, run.best = RunLog(tmp_path, 500, 10), [], None
        run._train()
    found = [options["checkpoint"] for _, options in training.fit_resumable.calls]
    assert found == [None, "states/checkpoint-4"]
