"""The last TensorFlow classes of transformers (4.57), compiled by XLA."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import tf_keras
import transformers

from benchmarks.peers import measuring, shapes


def build(arguments) -> transformers.TFPreTrainedModel:
    """The model with random weights."""
    transformers.logging.set_verbosity_error()
    shape = shapes.SHAPES[arguments.model]
    config = getattr(transformers, shape.config)(**shape.arguments(arguments.tiny, arguments.dropout))
    return getattr(transformers, f"TF{shape.model}")(config)


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    tf_keras.utils.set_random_seed(0)
    model = build(arguments)
    ids = tf.constant(measuring.token_ids(arguments, model.config.vocab_size))
    inputs = {"input_ids": ids, "attention_mask": tf.ones_like(ids)}
    target = {"decoder_input_ids": ids} if arguments.model in shapes.ENCODER_DECODERS else {}
    begins = 1 if target else arguments.length  # the start token, or the prompt
    model({**inputs, **target})
    compiled_forward = tf.function(lambda given: model(given, training=False).logits, jit_compile=True)
    compiled_generate = tf.function(model.generate, jit_compile=True)

    def train_step() -> float:
        return float(tf.reshape(model.train_on_batch({**inputs, "labels": ids}), [-1])[0])

    def forward() -> float:
        return float(tf.reduce_sum(compiled_forward({**inputs, **target})[0, -1]))

    def generate() -> float:
        lengths = {"max_new_tokens": arguments.new_tokens, "do_sample": False, "pad_token_id": 0}
        made = compiled_generate(**inputs, **lengths).numpy().shape[1] - begins
        if made != arguments.new_tokens:
            raise AssertionError(f"{arguments.new_tokens} tokens were wanted and {made} made")
        return float(made)

    if arguments.task == "train_step":
        model.compile(optimizer=tf_keras.optimizers.AdamW(5e-5, weight_decay=0.01), jit_compile=True)
    return {"train_step": train_step, "forward": forward, "generate": generate}[arguments.task], model.num_parameters()


if __name__ == "__main__":
    measuring.run(prepare)
