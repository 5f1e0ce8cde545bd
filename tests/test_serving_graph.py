"""What is in an exported graph, and that many callers of it at once get the answers of one."""

import collections
import json
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_text
import transformers
from tensorflow.core.protobuf import saved_model_pb2

import tfheads
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


def pieces(count: int) -> list[tuple[str, float]]:
    """Pieces of five scripts with their scores, the same wherever they are made."""
    scripts = ("abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстуфхцчшщыэюя", "αβγδεζηθικλμνξοπρστυφχψω")
    scripts += ("अआइईउऊकखगघचछजझटडतथदधनपफबभमयरलवशषसह", "的一是不了人我在有他这为之大来以个中上们")
    found = dict.fromkeys("▁" + "".join(scripts), -12.0)
    for number in range(1, count):
        for script in scripts:
            left, word = number * 2654435761 % 2**31, ""
            while left:
                word, left = word + script[left % len(script)], left // (3 * len(script))
            found.setdefault("▁" * (number % 2) + word, -8.0 - number / count)
            if len(found) == count:
                return list(found.items())
    raise AssertionError


@pytest.mark.slow
def test_a_vocabulary_of_250_000_pieces_is_not_in_the_graph(tmp_path):
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    tokenizer = transformers.XLMRobertaTokenizer(vocab=[*special, *pieces(250_000), ("<mask>", 0.0)])
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=66, **small)
    model = tfheads.AutoModelForMaskedLM.from_config(config)
    version = Path(exported(model, tokenizer, tmp_path))
    sizes = {path.name: path.stat().st_size for path in version.rglob("*") if path.is_file()}
    assert sizes["saved_model.pb"] < 5e6 < sizes["variables.data-00000-of-00001"]
    texts = ["the <mask> мир", "αβγ <mask> 的一是 नम"]
    answer = tf.saved_model.load(str(version)).signatures["serving_default"](text=tf.constant(texts))
    expected = tfheads.pipeline("fill-mask", model=model, tokenizer=tokenizer)(texts)
    found = [[text.decode() for text in row[0]] for row in answer["sequences"].numpy()]
    assert found == [[one["sequence"] for one in row] for row in expected]
