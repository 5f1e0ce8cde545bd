"""From text to served models in a few minutes, without a network: `make quickstart`.

Trains tokenizers, a small GPT-2 and a small BERT on the Python language reference that every CPython ships, shows what
they have learned, and asks their SavedModels in a process that knows only TensorFlow. Everything is written to
quickstart_output/.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import tensorflow_start  # noqa: F401

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched, and nothing waits for a network

import datasets
import matplotlib.pyplot as plt

import tfheads
from tfheads.data.corpora import python_reference
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece
from tfheads.recipes.arguments import CausalLanguageModellingArguments, MaskedLanguageModellingArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.language_modelling import run_causal_language_modelling, run_masked_language_modelling

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = Path("quickstart_output")
PROMPT = "The expression"
MASKED = "object.__add[MASK]_(self, other)"
LEAST_FALL = 10.0  # how many times lower the perplexity of the causal model must be after training


def main() -> None:
    os.chdir(ROOT)
    datasets.disable_progress_bars()
    started = time.monotonic()
    title("1. Text and tokenizers")
    write_corpus()
    title("2. GPT-2: causal language modelling")
    gpt2 = train(run_causal_language_modelling, CausalLanguageModellingArguments, "configs/quickstart_clm.yaml")
    title("3. BERT: masked language modelling")
    bert = train(run_masked_language_modelling, MaskedLanguageModellingArguments, "configs/quickstart_mlm.yaml")
    title("4. What they have learned")
    draw_curves({"GPT-2": gpt2, "BERT": bert})
    show_samples()
    title("5. Served")
    serve("gpt2", tfheads.AutoModelForCausalLM, PROMPT, max_new_tokens=40, do_sample=True, temperature=0.7, top_k=40)
    serve("bert", tfheads.AutoModelForMaskedLM, MASKED, top_k=3)
    title("Done")
    for name, entries in (("GPT-2", gpt2), ("BERT", bert)):
        before, after = perplexities(entries)
        print(f"{name}: perplexity {before:,.0f} before training, {after:,.1f} after, {before / after:.0f} times lower")
    print(f"Everything is in {OUTPUT}/; this took {time.monotonic() - started:.0f} seconds.")
    before, after = perplexities(gpt2)
    if before < LEAST_FALL * after:
        sys.exit(f"The perplexity of GPT-2 should have fallen at least {LEAST_FALL:.0f} times.")


def title(text: str) -> None:
    """A line that divides the output."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def write_corpus() -> None:
    """The text, divided by document, and a tokenizer for each model."""
    documents = python_reference()
    parts = documents.train_test_split(test_size=0.1, seed=0)
    (OUTPUT / "corpus").mkdir(parents=True, exist_ok=True)
    parts["train"].to_json(OUTPUT / "corpus" / "train.jsonl")
    parts["test"].to_json(OUTPUT / "corpus" / "validation.jsonl")
    print(
        f"The Python language reference: {len(documents)} documents, {sum(map(len, documents['text'])):,} characters; "
        f"{len(parts['train'])} to train on, {len(parts['test'])} to evaluate on."
    )
    for name, learn in (("gpt2", train_byte_level_bpe), ("bert", train_wordpiece)):
        tokenizer = learn(parts["train"], vocab_size=4096)
        tokenizer.save_pretrained(OUTPUT / "tokenizers" / name)
        kind = {"gpt2": "byte-level BPE", "bert": "WordPiece"}[name]
        print(f"A {kind} tokenizer of {len(tokenizer):,} tokens for {name}.")


def train(recipe, arguments_class: type, config: str) -> list[dict]:
    """Runs a recipe, says how the perplexity changed, and returns the log."""
    arguments = parse(arguments_class, [config])
    recipe(arguments)
    log = Path(arguments.output_dir, "log_history.jsonl").read_text(encoding="utf-8")
    entries = [json.loads(line) for line in log.splitlines()]
    before, after = perplexities(entries)
    print(f"Perplexity on the evaluation documents: {before:,.0f} before, {after:,.1f} after training.")
    return entries


def perplexities(entries: list[dict]) -> tuple[float, float]:
    """The first and the last perplexity of a log."""
    found = [entry["perplexity"] for entry in entries if "perplexity" in entry]
    return found[0], found[-1]


def draw_curves(logs: dict[str, list[dict]]) -> None:
    """The losses over the steps, one picture beside the other."""
    figure, axes = plt.subplots(1, len(logs), figsize=(5 * len(logs), 3.6), sharey=True, constrained_layout=True)
    for axis, (name, entries) in zip(axes, logs.items(), strict=True):
        for key, label, style in (("loss", "training", "-"), ("eval_loss", "evaluation", "o--")):
            points = [(entry["step"], entry[key]) for entry in entries if key in entry]
            axis.plot(*zip(*points, strict=True), style, label=label, markersize=4)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss (nats for each token)")
    axes[-1].legend()
    figure.savefig(OUTPUT / "loss_curves.png", dpi=120)
    print(f"The loss curves are in {OUTPUT / 'loss_curves.png'}.")


def show_samples() -> None:
    """A continued prompt and a filled mask, by pipelines from the saved directories."""
    generate = tfheads.pipeline("text-generation", model=str(OUTPUT / "gpt2"))
    answer = generate(PROMPT, max_new_tokens=60, do_sample=True, temperature=0.7, top_k=40, seed=1)
    print(f"\nGPT-2 goes on:\n{indented(answer[0]['generated_text'])}")
    fill = tfheads.pipeline("fill-mask", model=str(OUTPUT / "bert"))
    print(f"\nBERT fills {MASKED!r}:")
    for guess in fill(MASKED, top_k=5):
        print(f"    {guess['score']:6.1%}  {guess['token_str']}")


def serve(name: str, model_class, text: str, **options) -> None:
    """Exports a SavedModel and asks it in a fresh process that imports only tensorflow and tensorflow_text."""
    source = str(OUTPUT / name)
    model = model_class.from_pretrained(source)
    directory = model.export_serving(OUTPUT / "serving" / name, tokenizer=source, overwrite=True, **options)
    command = [sys.executable, "training/ask_saved_model.py", directory, text]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        sys.exit(f"The SavedModel in {directory} gave no answer:\n{asked.stderr}")
    answer = json.loads(asked.stdout)
    print(f"{directory} answers {text!r}:")
    if "generated_text" in answer:
        print(indented(answer["generated_text"][0]))
    else:
        print(f"    {', '.join(answer['tokens'][0][0])}")


def indented(text: str) -> str:
    """Text with a margin."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


if __name__ == "__main__":
    main()
