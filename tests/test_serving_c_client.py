"""A SavedModel answers a program in C as it answers Python: nothing of it needs Python."""

import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_text
from tensorflow.core.protobuf import saved_model_pb2

from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt

SOURCE = Path(__file__).with_name("saved_model_client.c")
TEXTS = ["the cat sat on", "", "a café,  two\n lines 中 😀", "nul\0 and \x7f", "the dog ran " * 20]
COMPILER = shutil.which("gcc") or shutil.which("cc")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The compiled program."""
    program = tmp_path_factory.mktemp("client") / "saved_model_client"
    folder = Path(tf.sysconfig.get_lib())
    command = [COMPILER, "-Wall", "-Wextra", "-Werror", "-O1", f"-isystem{tf.sysconfig.get_include()}", str(SOURCE)]
    command += [str(path) for path in sorted(folder.glob("libtensorflow_*.so.*"))]
    subprocess.run([*command, f"-Wl,-rpath,{folder}", "-o", str(program)], check=True)
    return program


def called(client: Path, version: str, output: str, texts: list[str]) -> list[bytes]:
    """The strings of an output of `serving_default`."""
    graph = saved_model_pb2.SavedModel.FromString(Path(version, "saved_model.pb").read_bytes()).meta_graphs[0]
    signature = graph.signature_def["serving_default"]
    names = [signature.inputs["text"].name.split(":")[0], *signature.outputs[output].name.split(":")]
    libraries = sorted(str(path) for path in Path(tensorflow_text.__file__).parent.glob("python/ops/_*.so"))
    encoded = [text.encode() for text in texts]
    given = b"".join(b"%d\n%b" % (len(text), text) for text in encoded)
    done = subprocess.run([client, version, *names, *libraries], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    answers, rest = [], done.stdout
    while rest:
        size, _, rest = rest.partition(b"\n")
        answers.append(rest[: int(size)])
        rest = rest[int(size) :]
    return answers


def exported(kind: str, directory: Path) -> tuple[str, str]:
    """A version, and the name of its answer."""
    if kind == "generator":
        model = rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2, n_layer=1)
        return model.export_serving(directory, tiny_tokenizers.byte_level_bpe(), max_new_tokens=6), "generated_text"
    config = {**pipeline_cases.BERT, **pipeline_cases.labels(pipeline_cases.FEELINGS)}
    model = rebuilt("BertForSequenceClassification", config)
    return model.export_serving(directory, tiny_tokenizers.wordpiece()), "label"


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize("kind", ["classifier", "generator"])
def test_a_program_in_c_gets_the_answers_of_python(client, kind, tmp_path):
    version, output = exported(kind, tmp_path)
    expected = tf.saved_model.load(version).signatures["serving_default"](text=tf.constant(TEXTS))[output]
    assert called(client, version, output, TEXTS) == expected.numpy().tolist()
    assert called(client, version, output, []) == []
