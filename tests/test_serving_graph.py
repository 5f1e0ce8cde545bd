"""What is in an exported graph, and that many callers of it at once get the answers of one."""

import collections
import json
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_text
from tensorflow.core.protobuf import saved_model_pb2

from benchmarks import serving_load
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tests.serving_calls import exported


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A classifier, with a signature that XLA compiles."""
    directory = tmp_path_factory.mktemp("models") / "classifier"
    config = {**pipeline_cases.BERT, **pipeline_cases.labels(pipeline_cases.FEELINGS), "num_hidden_layers": 1}
    model = rebuilt("BertForSequenceClassification", config)
    return Path(exported(model, tiny_tokenizers.wordpiece(), directory, jit_compile=True))


@pytest.fixture(scope="module")
def graph(version):
    return saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0]


def nodes_of(graph, signature: str) -> list:
    """All nodes that a signature runs, those of the functions that it calls among them."""
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    outer = {node.name: node for node in graph.graph_def.node}
    names = [tensor.name.split(":")[0] for tensor in graph.signature_def[signature].outputs.values()]
    waiting, seen, found = collections.deque(names), set(), []
    while waiting:
        name = waiting.popleft()
        if name in seen:
            continue
        seen.add(name)
        for node in functions.get(name, [outer[name]] if name in outer else []):
            found.append(node)
            waiting.extend(attribute.func.name for attribute in node.attr.values() if attribute.HasField("func"))
            waiting.extend(f.name for attribute in node.attr.values() for f in attribute.list.func)
            if name in outer:
                waiting.extend(given.lstrip("^").split(":")[0] for given in node.input)
    return found


def compiled(nodes) -> list[str]:
    """The nodes that XLA has to compile."""
    return [node.name for node in nodes if node.op.startswith("Xla") or node.attr["_XlaMustCompile"].b]


def test_only_the_signature_for_xla_needs_it(graph):
    signatures = [name for name in graph.signature_def if not name.startswith("__")]
    assert sorted(signatures) == ["serving_default", "text_pair", "token_level", "token_level_xla"]
    for name in signatures:
        nodes = nodes_of(graph, name)
        assert len(nodes) > 100 and "MatMul" in {node.op for node in nodes}
        assert bool(compiled(nodes)) == name.endswith("_xla")


def test_operations_are_those_of_tensorflow_and_tensorflow_text(graph, version):
    manifest = json.loads((version.parent / "manifest.json").read_text())
    libraries = Path(tensorflow_text.__file__).parent.glob("python/ops/_*.so")
    known = {name for library in libraries for name in dir(tf.load_op_library(str(library)))}
    own = [name for name in manifest["operations"] if not hasattr(tf.raw_ops, name)]
    assert own and own == manifest["custom_operations"]["tensorflow_text"] and set(own) <= known
    assert not [name for name in manifest["operations"] if "PyFunc" in name]


def test_many_callers_get_the_answers_of_one(version):
    loaded = tf.saved_model.load(str(version))
    result = serving_load.load(loaded.signatures["serving_default"], requests=1000, callers=8, at_once=250)
    assert result["errors"] == [] and result["wrong"] == 0
    assert len(result["megabytes"]) == 4 and result["megabytes"][-1] < result["megabytes"][0] + 20
