"""Whether TensorFlow's DTensor can divide a model of tfheads over devices: python -m benchmarks.dtensor [--devices 2].

Of a tiny GPT-2, the kernels of queries, keys, values and the first feed-forward layer are divided over the devices of a
mesh by their outputs, the other kernels by their inputs. Forward pass and training steps are compared with one device.
"""

import argparse

import numpy as np
import tensorflow as tf
from tensorflow.experimental import dtensor

SIZES = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
AXIS, RATE, STEPS = "model", 0.1, 4
BY_OUTPUTS, BY_INPUTS = ("query", "key", "value", "up"), ("output_dense", "down")


def divide(model, mesh: dtensor.Mesh) -> None:
    """Puts variables on a mesh in place of the model's own."""
    from tfheads.checkpoints.attribute_walk import layers_by_path

    layouts = {}
    for path, layer in layers_by_path(model):
        if path.endswith(BY_OUTPUTS):
            layouts[id(layer.kernel)], layouts[id(layer.bias)] = [dtensor.UNSHARDED, AXIS], [AXIS]
        elif path.endswith(BY_INPUTS):
            layouts[id(layer.kernel)] = [AXIS, dtensor.UNSHARDED]
    for variable in model.weights:
        axes = layouts.get(id(variable), [dtensor.UNSHARDED] * len(variable.shape))
        whole = dtensor.copy_to_mesh(variable.value.read_value(), dtensor.Layout.replicated(mesh, len(axes)))
        variable._value = dtensor.DVariable(dtensor.relayout(whole, dtensor.Layout(axes, mesh)))


def step(model, ids) -> tf.Tensor:
    """One step of gradient descent; Keras' optimizers know no meshes."""
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        logits = tf.nn.log_softmax(model.call({"input_ids": ids})["logits"][:, :-1])
        loss = -tf.reduce_mean(tf.reduce_sum(logits * tf.one_hot(ids[:, 1:], SIZES["vocab_size"]), -1))
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(RATE * tf.convert_to_tensor(gradient))
    return loss


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    count = parser.parse_args().devices
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    import transformers

    import tfheads

    mesh = dtensor.create_mesh([(AXIS, count)], devices=[f"CPU:{index}" for index in range(count)])
    config = transformers.GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0)
    whole, divided = (tfheads.GPT2LMHeadModel(config, seed=0) for _ in range(2))
    divide(divided, mesh)
    ids = np.random.RandomState(0).randint(0, SIZES["vocab_size"], (4, 12)).astype("int32")
    expected = whole(ids)["logits"].numpy()
    on_mesh = dtensor.copy_to_mesh(tf.constant(ids), dtensor.Layout.replicated(mesh, 2))
    with dtensor.default_mesh(mesh):
        forward = tf.function(lambda given: divided.call({"input_ids": given})["logits"], autograph=False)
        difference = np.abs(forward(on_mesh).numpy() - expected).max()
        graph = tf.function(lambda given: step(divided, given), autograph=False)
        losses = [float(graph(on_mesh).numpy()) for _ in range(STEPS)]
    alone = [float(step(whole, tf.constant(ids)).numpy()) for _ in range(STEPS)]
    kernel = divided.backbone.stack.blocks[0].attention.query.kernel.value
    parts = [tuple(part.shape) for part in dtensor.unpack(kernel.read_value())]
    print(f"logits differ by at most {difference:.1e}")
    print(f"losses of {STEPS} steps: {losses}, on one device {alone}")
    print(f"a kernel of {tuple(kernel.shape)} is {parts} on the devices")


if __name__ == "__main__":
    main()
