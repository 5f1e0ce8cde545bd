"""PyTorch may be installed: nothing here imports it, and whoever imports it himself gets it."""

import os
import subprocess
import sys

from tests.tiny_models import gpt2_config

SCRIPT = """
import sys
import numpy as np
import transformers
import tfheads
from tfheads import callbacks, recipes
from tfheads.data import batching
from tfheads.recipes import language_modelling
import datasets

folder, ids = sys.argv[1], np.ones((2, 5), "int32")
model = tfheads.AutoModelForCausalLM.from_pretrained(folder)
assert model.config.dtype in (None, "float32"), model.config.dtype
model.compile("sgd", jit_compile=False)
rows = datasets.Dataset.from_dict({"input_ids": ids.tolist(), "labels": ids.tolist()})
model.fit(model.prepare_tf_dataset(rows, batch_size=2), verbose=0)
model.generate(ids, max_new_tokens=2, jit_compile=False)
model.save_pretrained(folder + "/again")
assert "torch" not in sys.modules
from transformers import modeling_rope_utils

assert modeling_rope_utils.torch.number == 7  # who uses it gets it
import torch

assert torch.number == 7 and sys.modules["torch"].__file__ and modeling_rope_utils.torch.number == 7
"""


def test_pytorch_is_not_imported_where_it_is_installed(tmp_path):
    import tfheads

    tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=0).save_pretrained(tmp_path / "model")
    installed, information = tmp_path / "site" / "torch", tmp_path / "site" / "torch-2.13.0.dist-info"
    installed.mkdir(parents=True)
    information.mkdir()
    (installed / "__init__.py").write_text("number = 7\n")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    path = os.pathsep.join([str(tmp_path / "site"), os.environ["PYTHONPATH"], *filter(None, [os.getcwd()])])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
