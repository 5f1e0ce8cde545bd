"""The Python environments of the peers, made once and apart from the project's own.

    python -m benchmarks.environments        # makes .venvs/torch and .venvs/hftf; a second run reinstalls nothing

TFHEADS_BENCH_ENVIRONMENTS names a folder that holds ready ones under the same names. KerasHub and tfheads run in the
environment that this is started from.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

FOLDER_VARIABLE = "TFHEADS_BENCH_ENVIRONMENTS"

REQUIREMENTS = {
    "torch": ("torch==2.13.0", "transformers==5.23.0", "safetensors==0.8.0", "numpy==2.4.6"),
    "hftf": ("tensorflow==2.19.1", "tf-keras==2.19.0", "transformers==4.57.3"),
}
"""`torch`: PyTorch and today's transformers. `hftf`: the last transformers that had TensorFlow classes."""

TOP = Path(__file__).resolve().parent.parent


def interpreter(name: str) -> Path:
    """The Python of the environment `name`, which is made if it does not exist; `project` is the running one.

    Raises:
        FileNotFoundError: TFHEADS_BENCH_ENVIRONMENTS is set and holds no such environment.
        RuntimeError: installing failed.
    """
    if name == "project":
        return Path(sys.executable)
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        python = Path(given) / name / "bin" / "python"
        if not python.exists():
            raise FileNotFoundError(f"{FOLDER_VARIABLE} must name a folder with {name}/bin/python, got {given!r}")
        return python
    folder = TOP / ".venvs" / name
    installed = folder / "installed.txt"
    wanted = "\n".join(REQUIREMENTS[name]) + "\n"
    if not installed.exists() or installed.read_text() != wanted:
        _make(folder, name)
        installed.write_text(wanted)
    return folder / "bin" / "python"


def _make(folder: Path, name: str) -> None:
    print(f"making {folder.relative_to(TOP)}: {' '.join(REQUIREMENTS[name])}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]]
    if subprocess.run(command).returncode:
        raise RuntimeError(f"pip could not install the environment {name!r} in {folder}")


if __name__ == "__main__":
    for each in REQUIREMENTS:
        print(f"{each}: {interpreter(each)}")
