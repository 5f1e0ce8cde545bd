"""What is written with a SavedModel: warm-up, manifest, the server's files, requests; and `tfheads serve`."""

import ast
import concurrent.futures
import importlib.util
import json
import os
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

import tfheads_command
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tests.serving_calls import exported
from tfheads.serving import request_examples, server_files
from tfheads.serving.bundle_files import write_beside
from tfheads.serving.server_files import can_batch, model_name
from tfheads.serving.token_level import Bundle

REST_OF_A_ROW = {"attention_mask": [[1]], "token_type_ids": [[0]]}


@pytest.fixture(scope="module")
def bert():
    return rebuilt("BertForMaskedLM", pipeline_cases.BERT, num_hidden_layers=1)


@pytest.fixture(scope="module")
def directory(bert, tmp_path_factory):
    """A model's directory, with one version."""
    directory = tmp_path_factory.mktemp("models") / "fill masks"
    exported(bert, tiny_tokenizers.wordpiece(), directory, version=4)
    return directory


@pytest.fixture(scope="module")
def loaded(directory):
    return tf.saved_model.load(str(directory / "4"))


@pytest.fixture(scope="module")
def manifest(directory):
    return json.loads((directory / "manifest.json").read_text())


def predicted(loaded, request: predict_pb2.PredictRequest) -> dict:
    """What a signature answers to a server's message."""
    inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
    return loaded.signatures[request.model_spec.signature_name](**inputs)


def test_a_server_warms_up_with_every_signature(directory, loaded, manifest):
    path = str(directory / "4/assets.extra/tf_serving_warmup_requests")
    records = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(path)]
    requests = [record.predict_log.request for record in records]
    assert {request.model_spec.signature_name for request in requests} == set(loaded.signatures)
    assert {request.model_spec.name for request in requests} == {"fill-masks"}
    assert len(requests) == manifest["warm_up_requests"] <= 20
    for request in requests:
        assert predicted(loaded, request)


def test_the_manifest_says_what_a_server_needs(directory, loaded, manifest):
    assert manifest["tensorflow"] == tf.__version__ and manifest["name"] == "fill-masks"
    assert manifest["model"]["class"] == "BertForMaskedLM" and manifest["model"]["config"] == "BertConfig"
    assert set(manifest["signatures"]) == set(loaded.signatures)
    for name, signature in loaded.signatures.items():
        described = manifest["signatures"][name]
        for spec in signature.structured_input_signature[1].values():
            shape = [-1 if size is None else size for size in spec.shape]
            assert described["inputs"][spec.name] == {"dtype": spec.dtype.name, "shape": shape}
        assert set(described["outputs"]) == set(signature.structured_outputs)
    custom = manifest["custom_operations"]["tensorflow_text"]
    assert custom == ["FastWordpieceTokenizeWithOffsets", "RegexSplitWithOffsets"]
    assert {"MatMul", *custom} < set(manifest["operations"]) and len(manifest["operations"]) > 50
    sizes = {path.relative_to(directory / "4").as_posix(): path.stat().st_size for path in files(directory / "4")}
    assert manifest["bytes"] == sizes
    assert "tokenizer" in manifest["tokenizer"]["check"]


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_the_servers_files_agree_with_each_other(directory):
    config = text_format.Parse(
        (directory / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config[0]
    assert (config.name, config.base_path) == ("fill-masks", "/models/fill-masks")
    compose = yaml.safe_load((directory / "docker-compose.yaml").read_text())["services"]["fill-masks"]
    assert compose["volumes"][0]["target"] == config.base_path and compose["environment"]["MODEL_NAME"] == config.name
    deployment, service = yaml.safe_load_all((directory / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v1/models/fill-masks", "port": "rest"}
    assert container["volumeMounts"][0]["mountPath"] == config.base_path
    assert container["args"] == compose["command"] and container["image"] == compose["image"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert [port["port"] for port in service["spec"]["ports"]] == [8500, 8501]
    batching = (directory / "batching.config").read_text()
    sizes = [int(line.split()[-1]) for line in batching.splitlines() if line.startswith("allowed_batch_sizes")]
    assert sizes == sorted(sizes) and f"max_batch_size {{ value: {sizes[-1]} }}" in batching
    assert "pad_variable_length_inputs: false" in batching
    assert f"--batching_parameters_file={config.base_path}/batching.config" in compose["command"]


def signatures(**inputs) -> dict:
    return {"signatures": {name: {"inputs": {"x": {"shape": shape}}} for name, shape in inputs.items()}}


def test_requests_are_joined_only_where_every_signature_allows_it():
    assert can_batch(signatures(serving_default=[-1], token_level=[-1, -1]))
    assert not can_batch(signatures(serving_default=[-1, -1]))  # rows of several lengths
    assert not can_batch(signatures(serving_default=[-1], generate=[]))
    assert "batching.config" not in server_files.server_files("m", {**signatures(serving_default=[]), "bytes": {}})


def test_names_are_simple():
    assert model_name(Path("/a/my model (2)")) == "my-model-2" and model_name(Path("/a/gpt2_x.1")) == "gpt2_x.1"
    assert model_name(Path("/")) == model_name(Path("/a/中")) == "model"
    assert server_files._label("GPT2_x.1") == "gpt2-x-1" and server_files._label("7b") == "model-7b"


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers as TensorFlow Serving would, with the SavedModel in this process."""

    def __init__(self, loaded):
        self.loaded = loaded

    def Predict(self, request, context):
        assert request.model_spec.name == "fill-masks"
        response = predict_pb2.PredictResponse()
        for name, value in predicted(self.loaded, request).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return response


def test_requests_over_grpc_get_the_answers_of_the_export(directory, loaded, manifest, monkeypatch, capsys):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(loaded), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    spec = importlib.util.spec_from_file_location("grpc_requests", directory / "requests/grpc_requests.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        script.main(f"localhost:{port}")
    finally:
        server.stop(None)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["signature_name"] for answer in answers] == sorted(manifest["signatures"])
    for answer in answers:
        path = directory / f"requests/{answer['signature_name']}.answer.json"
        outputs = json.loads(path.read_text())["outputs"]
        given = {name: np.asarray(value) for name, value in answer["outputs"].items()}
        assert_equal(outputs, request_examples.rest_outputs(given), answer["signature_name"])


def assert_equal(stored, given, signature):
    """Numbers to five digits, all else exactly."""
    if signature == "token_level":
        stored, given = {"scores": stored, "sequences": True}, {"scores": given, "sequences": True}
    np.testing.assert_allclose(stored.pop("scores"), given.pop("scores"), rtol=1e-5, atol=1e-6)
    assert stored == given and stored["sequences"]


def test_large_answers_are_not_shown():
    outputs = {"logits": np.zeros((1, 8, 200), "float32"), "label": np.array([b"caf\xc3\xa9"])}
    shown = request_examples.rest_outputs(outputs)
    assert shown == {"logits": "float32 of shape [1, 8, 200], not shown here", "label": ["caf\u00e9"]}


def test_requests_over_rest_are_what_the_files_say(directory, tmp_path):
    executable(tmp_path / "curl", "#!/bin/sh\npwd\nfor word; do echo $word; done\n")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["sh", str(directory / "requests/rest.sh"), "http://host:9"]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[0] == str(directory / "requests")
    for name in ("serving_default", "fill_mask", "token_level"):
        assert f"@{name}.json" in printed
        body = json.loads((directory / f"requests/{name}.json").read_text())
        assert body["signature_name"] == name and body["inputs"]
    assert printed.count("http://host:9/v1/models/fill-masks:predict") == 3
    assert "http://host:9/v1/models/fill-masks" in printed


def test_the_script_for_clients_needs_nothing_of_tfheads(directory):
    source = (directory / "requests/grpc_requests.py").read_text()
    imported = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imported for alias in node.names} | {getattr(n, "module", "") for n in imported}
    assert not any(name and name.startswith("tfheads") for name in names)


def test_an_example_that_fails_stops_the_export(bert, tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("old")
    monkeypatch.setattr(Bundle, "token_level_example", lambda self: {"input_ids": [[105]]} | REST_OF_A_ROW)
    with pytest.raises(tf.errors.InvalidArgumentError, match="input_ids must be between 0 and 104"):
        bert.export_serving(tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == "old"


def test_files_beside_the_versions_are_replaced_together(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    write_beside(tmp_path, {"manifest.json": "1", "batching.config": "1", "requests/a.json": "1"})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_disk(Path.write_text))
        with pytest.raises(OSError, match="No space left"):
            write_beside(tmp_path, {"manifest.json": "2", "full": "2"})
    assert {path.name: path.read_text() for path in files(tmp_path)} == dict.fromkeys(
        ("manifest.json", "batching.config", "a.json"), "1"
    )
    write_beside(tmp_path, {"manifest.json": "3"})
    assert (tmp_path / "manifest.json").read_text() == "3" and not (tmp_path / "batching.config").exists()
    assert (tmp_path / "1").is_dir() and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def full_disk(write):
    def failing(path, content, **options):
        if path.name == "full":
            raise OSError(28, "No space left on device")
        return write(path, content, **options)

    return failing


def executable(path: Path, content: str = '#!/bin/sh\necho started "$@"\n') -> None:
    path.write_text(content)
    path.chmod(0o755)


def serve(capfd, monkeypatch, programs: Path, *arguments) -> tuple[int, str, str]:
    monkeypatch.setenv("PATH", str(programs))
    capfd.readouterr()
    code = tfheads_command.main(["serve", *map(str, arguments)])
    printed = capfd.readouterr()
    return code, printed.out.strip(), printed.err.strip()


def test_serve_prefers_the_server_then_docker(directory, tmp_path, monkeypatch, capfd):
    code, _, error = serve(capfd, monkeypatch, tmp_path, directory)
    assert code == 1 and error.startswith("tfheads: tensorflow_model_server or docker must be installed")
    executable(tmp_path / "docker")
    code, printed, _ = serve(capfd, monkeypatch, tmp_path, directory, "--dry-run", "--rest-port", 9000)
    assert code == 0 and printed.startswith(f"{tmp_path}/docker run --rm --publish=8500:8500 --publish=9000:8501")
    assert f"'--mount=type=bind,source={directory},target=/models/fill-masks,readonly'" in printed
    assert "--env=MODEL_NAME=fill-masks tensorflow/serving:" in printed
    assert printed.endswith("--batching_parameters_file=/models/fill-masks/batching.config")
    executable(tmp_path / "tensorflow_model_server")
    code, printed, _ = serve(capfd, monkeypatch, tmp_path, directory, "--dry-run", "--port", 7, "--no-batching")
    assert code == 0 and printed == (
        f"{tmp_path}/tensorflow_model_server --port=7 --rest_api_port=8501 --model_name=fill-masks "
        f"'--model_base_path={directory}'"
    )


def test_serve_becomes_the_server(directory, tmp_path, monkeypatch, capfd):
    executable(tmp_path / "tensorflow_model_server")
    # In place of this process, which has tests to run.
    monkeypatch.setattr(os, "execv", lambda program, command: subprocess.run(command, executable=program, check=True))
    code, printed, _ = serve(capfd, monkeypatch, tmp_path, directory, "--name", "other")
    printed, started = printed.splitlines()
    assert code == 0 and "--model_name=other" in printed
    assert started == (
        f"started --port=8500 --rest_api_port=8501 --model_name=other --model_base_path={directory} "
        f"--enable_batching=true --batching_parameters_file={directory}/batching.config"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "port must be from 1 to 65535, got 0"),
        (["--port", "8501"], "rest_port must differ from port, both are 8501"),
        (["--name", "a b"], "name must consist of letters, digits, '.', '_' and '-', got 'a b'"),
    ],
)
def test_serve_says_what_is_wrong(directory, tmp_path, monkeypatch, capfd, arguments, message):
    code, printed, error = serve(capfd, monkeypatch, tmp_path, directory, *arguments)
    assert (code, printed, error) == (1, "", f"tfheads: {message}")
    code, _, error = serve(capfd, monkeypatch, tmp_path, tmp_path, *arguments)
    assert code == 1 and "must hold a version such as 1/saved_model.pb" in error
