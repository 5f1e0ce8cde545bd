"""The arguments of the `tfheads` command; a module of its own, for importing the package takes seconds."""

import argparse
import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator

EPILOG = """\
examples:
  tfheads verify openai-community/gpt2    is every tensor understood; with PyTorch installed, are the logits equal
  tfheads verify my-checkpoint --class AutoModel
  tfheads export my-checkpoint serving/my-model    writes serving/my-model/1, from strings to answers
  tfheads export my-checkpoint serving/my-model --version 2 --max-new-tokens 100 --do-sample --temperature 0.8
  tfheads serve serving/my-model    starts TensorFlow Serving, which must be installed, or Docker

A checkpoint is a directory in Hugging Face's format or the id of a repository on the Hub.
"""

SWITCH = {"action": "store_true", "default": None}
POOLINGS = "mean, cls, max, ..., or sentence-transformers"


def parser() -> argparse.ArgumentParser:
    """The command's arguments and help."""
    command = argparse.ArgumentParser(
        prog="tfheads",
        description="Keras models from and to Hugging Face checkpoints: check a checkpoint, export it to TF Serving.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--version", action="version", version=_version())
    commands = command.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    _add_verify(commands)
    _add_export(commands)
    _add_serve(commands)
    return command


def _add_verify(commands) -> None:
    verify = commands.add_parser(
        "verify",
        help="check that a checkpoint is understood completely",
        description="Checks family, class, every tensor, tokenizer and generation config of a checkpoint; where "
        "PyTorch is installed, compares logits with transformers. Exit code 0 if all is well, 1 if not.",
    )
    _add_checkpoint(verify)


def _add_export(commands) -> None:
    export = commands.add_parser(
        "export",
        help="write a SavedModel for TensorFlow Serving",
        description="Writes DIRECTORY/VERSION, a SavedModel that takes strings and gives answers without Python.",
    )
    _add_checkpoint(export)
    export.add_argument(
        "directory", help="the model's directory, which TensorFlow Serving watches; with --litert a file"
    )
    export.add_argument("--version", type=int, default=1, help="whole number, the new directory's name (1)")
    export.add_argument("--overwrite", action="store_true", help="replace a version that exists")
    export.add_argument("--dtype", help="dtype policy of the weights, such as bfloat16 (float32)")
    tokenizer = export.add_mutually_exclusive_group()
    tokenizer.add_argument("--tokenizer", help="directory or id of the tokenizer, if not the checkpoint")
    tokenizer.add_argument("--token-level", action="store_true", help="token ids in, logits out: without a tokenizer")
    export.add_argument("--litert", action="store_true", help="write a LiteRT file instead: token ids in, logits out")
    export.add_argument("--jit-compile", **SWITCH, help="add token_level_xla, which servers with XLA can run")
    _add_writing(export.add_argument_group("models that write, or fill masks"))
    _add_reading(export.add_argument_group("models that read"))


def _add_writing(options) -> None:
    options.add_argument("--max-new-tokens", type=int, help="how many tokens at most (64)")
    options.add_argument("--min-new-tokens", type=int, help="no end before so many (0)")
    options.add_argument("--num-beams", type=int, help="search with so many beams (1)")
    options.add_argument("--do-sample", **SWITCH, help="draw tokens, not the likeliest")
    options.add_argument("--temperature", type=float, help="above 0; lower is closer to the likeliest")
    options.add_argument("--top-p", type=float, help="draw from the likeliest tokens that add up to this probability")
    options.add_argument("--top-k", type=int, help="draw from so many; masked language models: how many answers (5)")
    options.add_argument("--prefix", help="encoder-decoders: goes before every text (the config's)")
    options.add_argument("--task", help="encoder-decoders: a name in the config's task_specific_params")


def _add_reading(options) -> None:
    options.add_argument("--function-to-apply", help="classes of texts: softmax, sigmoid or none (the problem's own)")
    options.add_argument("--aggregation-strategy", help="classes of tokens: none, simple, first, average, max (simple)")
    options.add_argument("--ignore-labels", nargs="*", help="classes of tokens: labels to leave out (O)")
    options.add_argument("--stride", type=int, help="classes of tokens: overlap of windows (long texts are cut)")
    options.add_argument("--max-seq-len", type=int, help="questions: tokens of a window (384)")
    options.add_argument("--doc-stride", type=int, help="questions: overlap of windows (128)")
    options.add_argument("--max-answer-len", type=int, help="questions: tokens of an answer (15)")
    options.add_argument("--handle-impossible-answer", **SWITCH, help="questions: there may be no answer")
    options.add_argument("--pooling", help=f"bare models: {POOLINGS} (the directory's, or mean)")
    options.add_argument("--normalize", **SWITCH, help="bare models: vectors of length 1 (the directory's)")


def _add_serve(commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="start TensorFlow Serving on what export wrote",
        description="Starts tensorflow_model_server, or if it is not installed its container in Docker, on a model's "
        "directory; prints the command first.",
    )
    serve.add_argument("directory", help="the model's directory, which holds the versions")
    serve.add_argument("--port", type=int, default=8500, help="port of gRPC (8500)")
    serve.add_argument("--rest-port", type=int, default=8501, help="port of REST (8501)")
    serve.add_argument("--name", help="what the server calls the model (as at export: the directory's name)")
    serve.add_argument("--no-batching", dest="batching", action="store_false", help="answer each request by itself")
    serve.add_argument("--dry-run", action="store_true", help="print the command, start nothing")


def _add_checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", help="directory in Hugging Face's format, or id of a repository on the Hub")
    command.add_argument("--class", dest="class_name", metavar="NAME", help="class, if not that of config.json")
    command.add_argument("--revision", help="branch, tag or commit on the Hub")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    asked = parser().parse_args(arguments)
    with without_notes_of_libraries():
        import tensorflow as tf

        tf.config.list_logical_devices()
        from tfheads import cli
    return cli.run(asked)


@contextlib.contextmanager
def without_notes_of_libraries() -> Iterator[None]:
    """Drops what TensorFlow's C++ code writes when it starts or converts, which no setting turns off."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _version() -> str:
    try:
        return f"tfheads {importlib.metadata.version('tfheads')}"
    except importlib.metadata.PackageNotFoundError:
        return "tfheads, not installed"


if __name__ == "__main__":
    sys.exit(main())
