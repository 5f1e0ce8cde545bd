"""What the `tfheads` command does; its arguments are in `tfheads_command`."""

import argparse
import shlex
import sys
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError

from tfheads.checkpoints import hub
from tfheads.checkpoints.pretrained import read_config
from tfheads.verification import class_for, verify
from tfheads_command import without_notes_of_libraries

# Arguments of `tfheads export` that are no options of `export_serving`.
OF_EXPORT = (
    *("command", "checkpoint", "class_name", "revision", "dtype"),
    *("directory", "version", "overwrite", "tokenizer", "token_level", "litert"),
)


def run(asked: argparse.Namespace) -> int:
    """Runs one command; what the user can mend is one line, not a traceback."""
    try:
        return {"verify": run_verify, "export": run_export, "serve": run_serve}[asked.command](asked)
    except (ValueError, TypeError, OSError, HfHubHTTPError) as error:
        print(f"tfheads: {error}", file=sys.stderr)
        return 1


def run_verify(asked: argparse.Namespace) -> int:
    """Prints a line for each check as it is made; 0 if all are well."""
    failed = 0
    for check in verify(asked.checkpoint, asked.class_name, revision=asked.revision):
        print(check, flush=True)
        failed += check.ok is False
    print("all is well" if not failed else f"{failed} of the checks failed")
    return 1 if failed else 0


def run_export(asked: argparse.Namespace) -> int:
    """Loads a checkpoint and exports it."""
    from tfheads.serving.versions import check_version

    options = {name: value for name, value in vars(asked).items() if name not in OF_EXPORT and value is not None}
    if not asked.litert:
        check_version(asked.directory, asked.version, asked.overwrite)
    elif options or asked.tokenizer:
        raise ValueError(f"{next(iter(options), 'tokenizer')} must not be given with --litert, which takes token ids")
    directory = hub.resolve(asked.checkpoint, revision=asked.revision)
    cls = class_for(read_config(directory), asked.class_name)
    model = cls.from_pretrained(directory, dtype=asked.dtype)
    tokenizer = None if asked.token_level else asked.tokenizer or directory
    print(f"exporting {type(model).__name__} ({model.count_params():,} parameters)", flush=True)
    if asked.litert:
        with without_notes_of_libraries():
            path = Path(model.export_litert(asked.directory, overwrite=asked.overwrite))
        print(f"wrote {path} ({path.stat().st_size / 1e6:,.1f} MB)")
        return 0
    path = model.export_serving(asked.directory, tokenizer, asked.version, overwrite=asked.overwrite, **options)
    size = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
    print(f"wrote {path} ({size / 1e6:,.0f} MB)")
    print(f"serve it with: tfheads serve {asked.directory}")
    return 0


def run_serve(asked: argparse.Namespace) -> int:
    """Starts TensorFlow Serving, or prints how."""
    from tfheads.serving.server import serve, server_command

    options = {name: getattr(asked, name) for name in ("port", "rest_port", "name", "batching")}
    command = server_command(asked.directory, **options)
    print(shlex.join(command), flush=True)
    if not asked.dry_run:
        serve(command)
    return 0
