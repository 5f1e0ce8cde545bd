"""What the processes of a cluster with parameter servers do; see test_legacy.py."""

import json
from pathlib import Path

import tensorflow as tf
import tf_keras

import tfheads
from tests import tiny_models
from tfheads.legacy import as_tf_keras


def serve(spec: tf.train.ClusterSpec, role: str, index: int) -> None:
    """A worker or a parameter server, until it is ended."""
    tf.distribute.Server(spec, job_name=role, task_index=index, protocol="grpc", start=True).join()


def train(spec: tf.train.ClusterSpec, directory: Path) -> None:
    """The chief: trains, evaluates, saves."""
    kind = {"task_type": "chief", "task_id": 0, "rpc_layer": "grpc"}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, **kind)
    in_parts = tf.distribute.experimental.partitioners.MinSizePartitioner(min_shard_bytes=1024, max_shards=2)
    with tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=in_parts).scope():
        original = tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(), seed=0)
        model = as_tf_keras(original)
        model.compile(optimizer=tf_keras.optimizers.Adam(1e-2))

    def data(context):
        ids = tiny_models.token_ids(16, 9)
        return tf.data.Dataset.from_tensor_slices({"input_ids": ids, "labels": ids}).repeat().batch(4)

    creator = tf_keras.utils.experimental.DatasetCreator(data)
    history = model.fit(creator, epochs=6, steps_per_epoch=20, verbose=0).history
    ids = tiny_models.token_ids(4, 9)
    original.save_pretrained(directory / "model")
    result = {
        "loss": history["loss"],
        "final": float(original(input_ids=ids, labels=ids).loss),
        "parts_of_the_table": len(original.backbone.token_table.value.variables),
    }
    (directory / "result.json").write_text(json.dumps(result))


def main(cluster: str, role: str, index: int, directory: str) -> None:
    spec = tf.train.ClusterSpec(json.loads(cluster))
    if role == "chief":
        train(spec, Path(directory))
    else:
        serve(spec, role, index)
