"""One process of a cluster with parameter servers: CLUSTER ROLE INDEX DIRECTORY; see test_legacy.py."""

import json
import sys
from pathlib import Path

import tensorflow as tf


def serve(spec: tf.train.ClusterSpec, role: str, index: int) -> None:
    """A worker or a parameter server, until it is ended."""
    tf.distribute.Server(spec, job_name=role, task_index=index, protocol="grpc", start=True).join()


def train(spec: tf.train.ClusterSpec, directory: Path) -> None:
    """The chief: trains, evaluates, saves."""
    import tf_keras

    import tfheads
    from tests import tiny_models
    from tfheads.legacy import as_tf_keras

    kind = {"task_type": "chief", "task_id": 0, "rpc_layer": "grpc"}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, **kind)
    in_parts = tf.distribute.experimental.partitioners.MinSizePartitioner(min_shard_bytes=1024, max_shards=2)
    with tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=in_parts).scope():
        original = tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(), seed=0)
        model = as_tf_keras(original)
        model.compile(optimizer=tf_keras.optimizers.Adam(3e-2))

    def data(context):
        ids = tiny_models.token_ids(16, 9)
        return tf.data.Dataset.from_tensor_slices({"input_ids": ids, "labels": ids}).repeat().batch(4)

    creator = tf_keras.utils.experimental.DatasetCreator(data)
    history = model.fit(creator, epochs=4, steps_per_epoch=20, verbose=0).history
    ids = tiny_models.token_ids(4, 9)
    original.save_pretrained(directory / "model")
    result = {
        "loss": history["loss"],
        "final": float(original(input_ids=ids, labels=ids).loss),
        "parts_of_the_table": len(original.backbone.token_table.value.variables),
    }
    (directory / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    cluster, role, index, directory = tf.train.ClusterSpec(json.loads(sys.argv[1])), *sys.argv[2:5]
    if role == "chief":
        train(cluster, Path(directory))
    else:
        serve(cluster, role, int(index))
