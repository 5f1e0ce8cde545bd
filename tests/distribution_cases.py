"""What test_distribution runs in processes of its own, see `tests.distribution_processes`; or by hand:

    python -m tests.distribution_cases STRATEGY REPLICAS DIRECTORY CASE...

STRATEGY is that of `tfheads.distribute.strategy`, or "none". A worker of several finds its cluster in TF_CONFIG. What
the cases give is written to DIRECTORY by every worker, as CASE-WORKER.npz; they may write there themselves.
"""

import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfheads
from tests.distribution_recipes import measured, recipe
from tests.each_loss import EachLoss
from tests.tiny_models import bert_config, gpt2_config, token_ids
from tfheads import distribute
from tfheads.data.pipeline import TokenBlocks
from tfheads.distribute.agreement import worker_index
from tfheads.optimizers import AdamW

ROWS, TIME, STEPS = 8, 6, 20
IDS = token_ids(ROWS * 5, TIME)
# Rows have 0 to 6 real labels, and the rows of the last replicas none in some batches.
REAL = np.arange(TIME)[None] < (np.arange(len(IDS))[:, None] * 5 % 11 - 2)
LABELS = np.where(REAL & (np.arange(len(IDS))[:, None] % 8 < 5), IDS, -100).astype("int32")
MASK = (np.arange(TIME)[None] < 2 + np.arange(len(IDS))[:, None] % 5).astype("int32")
CLASSES = (IDS[:, 0] % 3).astype("int32")
UNEVEN = 2 * ROWS + 1  # the last batch has a row for one replica alone


def language_batches() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices({"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}).batch(ROWS)


def language_model(dtype=None, **changes):
    return tfheads.AutoModelForCausalLM.from_config(gpt2_config(**changes), seed=0, dtype=dtype)


def classifier():
    config = bert_config(num_labels=3)
    return tfheads.AutoModelForSequenceClassification.from_config(config, seed=0)


def weights(model) -> dict:
    return {f"weight_{place}": value for place, value in enumerate(model.get_weights())}


def trained(strategy, make=language_model, optimizer=None, batches=None, steps=STEPS, **options) -> tuple:
    """A model after some steps, and its weights and what the steps said."""
    with strategy.scope():
        model = make()
        optimizer = optimizer() if optimizer else keras.optimizers.SGD(0.3, momentum=0.9, global_clipnorm=0.3)
        model.compile(optimizer, **{"jit_compile": True, **options})
    each, batches = EachLoss(), language_batches() if batches is None else batches
    model.fit(batches.repeat(), steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[each])
    return model, {**weights(model), "losses": each.losses}


def evaluated(model, batches) -> dict:
    """How a model evaluates an uneven number of rows."""
    found = model.evaluate(batches.unbatch().take(UNEVEN).batch(ROWS), verbose=0, return_dict=True)
    return {f"evaluated_{name}": value for name, value in found.items()}


def predicted(model, batches) -> dict:
    """What a model predicts for an uneven number of rows."""
    return {"predicted": model.predict(batches.unbatch().take(UNEVEN).batch(ROWS), verbose=0).logits}


def plain(strategy):
    """Tied embeddings, uneven labels and masks, clipping, accuracy, perplexity, XLA."""
    model, found = trained(strategy, weighted_metrics=["accuracy"])
    return {**found, **evaluated(model, language_batches())}


def accumulated(strategy):
    """The same in two parts of each batch."""
    return trained(strategy, gradient_accumulation_steps=2)[1]


def several_steps(strategy):
    """The same, four steps in an execution, the last one cut short by the end of the data."""
    with strategy.scope():
        model = language_model()
        optimizer = keras.optimizers.SGD(0.3, momentum=0.9, global_clipnorm=0.3)
        model.compile(optimizer, steps_per_execution=4, jit_compile=False)
    model.fit(language_batches().repeat(4), verbose=0)
    model.fit(language_batches().take(3), verbose=0)
    return weights(model)


def averaged(strategy):
    """AdamW with a schedule and moving averages of the weights, which replace them twice and at the end."""
    options = {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 8}
    schedule = keras.optimizers.schedules.PolynomialDecay(1e-3, 2 * STEPS)
    make = functools.partial(AdamW, schedule, weight_decay=0.1, global_clipnorm=1.0, **options)
    return trained(strategy, optimizer=make, jit_compile=False)[1]


def scaled(strategy):
    """float16 with a loss scale that is too large at first, so that steps are left out.

    It does not grow again: a scale at which all rows together just overflow is none at which a part of them must.
    """

    def optimizer():
        return keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1, global_clipnorm=0.3), initial_scale=2.0**24, dynamic_growth_steps=2 * STEPS
        )

    model, found = trained(strategy, lambda: language_model("mixed_float16"), optimizer)
    return {**found, "scale": model.optimizer.dynamic_scale.numpy(), "updates": model.optimizer.iterations.numpy()}


def classified(strategy):
    """A classifier with measures of Keras, and labels that are left out."""
    labels = np.where(np.arange(len(IDS)) % 7 == 3, -100, CLASSES).astype("int32")
    rows = {"input_ids": IDS, "attention_mask": MASK}
    batches = tf.data.Dataset.from_tensor_slices((rows, labels)).batch(ROWS)
    with strategy.scope():
        measures = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")]
    model, found = trained(strategy, classifier, batches=batches, metrics=measures, jit_compile=False)
    batch, _ = next(iter(batches.unbatch().batch(ROWS - 1)))
    found |= evaluated(model, batches) | predicted(model, batches)
    return {**found, "on_batch": model.predict_on_batch(batch).logits}


def keras_loss(strategy):
    """Keras' loss and weights of rows."""
    weights = (np.arange(len(IDS)) % 3).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices(({"input_ids": IDS}, CLASSES, weights)).batch(ROWS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model, found = trained(strategy, classifier, batches=batches, loss=loss, metrics=["accuracy"])
    return {**found, **evaluated(model, batches), **predicted(model, batches)}


def arrays(strategy):
    """Arrays, in an order of their own in each epoch; generation; one batch at a time."""
    with strategy.scope():
        model = language_model()
        model.compile(keras.optimizers.SGD(0.3), jit_compile=False)
    inputs = {"input_ids": IDS[:UNEVEN], "labels": LABELS[:UNEVEN]}
    history = model.fit(inputs, batch_size=UNEVEN, epochs=2, validation_data=inputs, validation_batch_size=4, verbose=0)
    loss = model.train_on_batch(inputs, return_dict=True)["loss"]
    tested = model.test_on_batch(inputs, return_dict=True)
    generated = model.generate(IDS[:3], max_new_tokens=4, do_sample=False, jit_compile=False)
    return {
        **weights(model),
        **history.history,
        "loss_of_batch": loss,
        "tested": tested["loss"],
        "generated": np.asarray(generated),
    }


def dropped(strategy):
    """Dropout: each replica draws another mask, and the weights stay the same everywhere."""
    with strategy.scope():
        model = language_model(resid_pdrop=0.5, embd_pdrop=0.5)
        model.compile(keras.optimizers.SGD(0.3), jit_compile=False)
    same = {"input_ids": np.repeat(IDS[:1], 4, 0), "labels": np.repeat(IDS[:1], 4, 0)}
    model.fit(same, batch_size=4, epochs=3, verbose=0)

    def hidden():
        row = tf.constant(IDS[:1])
        return model({"input_ids": row}, training=True).logits

    each = [value.numpy() for value in strategy.experimental_local_results(strategy.run(tf.function(hidden)))]
    return {**weights(model), "masked": np.stack(each)}


def rows_of_workers(strategy):
    """Which rows each replica gets in two epochs, from blocks that know their shards and from any dataset."""
    blocks = TokenBlocks({"input_ids": np.arange(42, dtype="int32")[:, None] * [[1, 1]]})
    found = {}
    sources = {
        "blocks": blocks.batches(ROWS, seed=3, epochs=2, drop_remainder=False),
        "rows": tf.data.Dataset.range(42)
        .shuffle(42, seed=5)
        .batch(ROWS)
        .map(lambda rows: {"input_ids": rows[:, None]}),
    }
    with strategy.scope():
        sources["shards"] = distribute.batches.of_this_worker(blocks, ROWS, seed=3, epochs=2)
    for name, source in sources.items():
        seen = []
        for batch in distribute.batches.divided(source, strategy):
            local = strategy.experimental_local_results(batch["input_ids"])
            seen.append(np.concatenate([part.numpy()[:, 0] for part in local]))
        found[name] = np.concatenate(seen)
        found[f"{name}_sizes"] = [len(rows) for rows in seen]
    return found


def killed(strategy):
    """The last worker dies in the middle of an epoch; the others must not wait for it."""

    class Death(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3 and worker_index(strategy) > 0:
                os.kill(os.getpid(), signal.SIGKILL)

    with strategy.scope():
        model = language_model()
        model.compile(keras.optimizers.SGD(0.3), jit_compile=False)
    print(f"killing at {time.time()}", flush=True)
    model.fit(language_batches().repeat(), steps_per_epoch=100_000, epochs=1, verbose=0, callbacks=[Death()])
    return {}


def outside(strategy):
    """An optimizer and a measure that were made outside of the scope."""
    with strategy.scope():
        model = classifier()
    found = []
    optimizer = keras.optimizers.SGD(0.1, name="my_optimizer")  # Keras would number its name by what was made before
    measure = keras.metrics.SparseCategoricalAccuracy(name="my_measure")
    for options in ({"optimizer": optimizer}, {"metrics": [measure]}):
        try:
            model.compile(**options)
        except ValueError as error:
            found.append(str(error))
    return {"found": found}


def raised(strategy):
    """The last worker stops with an error of its own, after the step in which it meets a bad row."""

    class Error(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3 and worker_index(strategy) > 0:
                raise ValueError("a bad row")

    with strategy.scope():
        model = language_model()
        model.compile(keras.optimizers.SGD(0.3), jit_compile=False)
    try:
        model.fit(language_batches().repeat(), steps_per_epoch=100_000, epochs=1, verbose=0, callbacks=[Error()])
    finally:
        print(f"ending at {time.time()}", flush=True)
    return {}


def disagreeing(strategy):
    """Workers that make different models."""
    with strategy.scope():
        language_model(n_embd=16 + 16 * worker_index(strategy))
    return {}


CASES = {
    function.__name__: function
    for function in (
        *(plain, accumulated, several_steps, averaged, scaled, classified, keras_loss, arrays, recipe, measured),
        *(dropped, rows_of_workers, outside, killed, raised, disagreeing),
    )
}


def main(name: str, replicas: str, directory: str, *cases: str) -> None:
    """Runs the cases; an error's last line is what the tests look for, above is what any script prints."""
    try:
        run(name, int(replicas), Path(directory), cases)
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)  # without a wait for workers that are gone


def run(name: str, replicas: int, directory: Path, cases: Sequence[str]) -> None:
    strategy = tf.distribute.get_strategy()
    if name != "none":  # the machine may be busy
        options = {"replicas": replicas or None, "start_seconds": 300, "heartbeat_seconds": 20}
        strategy = distribute.strategy(name, **options)
    os.chdir(directory)
    for case in cases:
        began, used = time.monotonic(), time.process_time()
        found = CASES[case](strategy)
        np.savez(f"{case}-{worker_index(strategy)}", **{key: np.asarray(value) for key, value in found.items()})
        seconds, processor = time.monotonic() - began, time.process_time() - used
        print(f"{case} {seconds:.1f} s, {processor:.1f} s of a processor", flush=True)
    distribute.barrier(strategy)  # a worker that ends before would be taken for dead


if __name__ == "__main__":
    main(*sys.argv[1:])
