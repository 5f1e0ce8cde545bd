"""Small encoder-decoders with new weights on real pairs of texts: what they learn in minutes, measured twice.

    python -m benchmarks.writing translation --files train.en.gz train.de.gz --columns en de --steps 800
    python -m benchmarks.writing summarization --files news.jsonl --columns article summary --steps 300

A tokenizer is trained on the texts, then the recipe runs: `run_translation.py` or `run_summarization.py`. Of the rows
that are held out, one half is evaluated while the model trains, the other is written in the end. BLEU and ROUGE of what
is written are computed once more, as Hugging Face's scripts do it, from the file of predictions.
"""

import argparse
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tfheads.data.tokenizer_training import train_byte_level_bpe
from tfheads.metrics.rouge import KINDS, sentences
from tfheads.recipes.command_line import parse
from tfheads.recipes.summarization import SummarizationArguments, run_summarization
from tfheads.recipes.translation import TranslationArguments, run_translation

SIZES = {
    "d_model": 192,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 768,
    "decoder_ffn_dim": 768,
    "max_position_embeddings": 512,
    "scale_embedding": True,
}
TASKS = {
    "translation": (TranslationArguments, run_translation),
    "summarization": (SummarizationArguments, run_summarization),
}


def read_rows(files: Sequence[Path], columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of two files of lines, or of one file of JSON lines."""
    raw = (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files)
    lines = [content.decode("utf-8").rstrip("\n").split("\n") for content in raw]
    if len(files) == 1:
        rows = (json.loads(line) for line in lines[0])
        return [{name: row[name] for name in columns} for row in rows]
    return [dict(zip(columns, map(str.strip, pair), strict=True)) for pair in zip(*lines, strict=True)]


def prepare(options: argparse.Namespace) -> dict[str, list[dict[str, str]]]:
    """Writes the splits and the tokenizer into the folder; gives the splits."""
    rows = read_rows(options.files, options.columns)
    first, half = len(rows) - options.held_out, options.held_out // 2
    splits = {"train": rows[:first], "validation": rows[first : first + half], "test": rows[first + half :]}
    options.folder.mkdir(parents=True, exist_ok=True)
    for split, part in splits.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (options.folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    texts = (row[name] for row in splits["train"] for name in options.columns)
    train_byte_level_bpe(texts, options.vocabulary).save_pretrained(options.folder / "tokenizer")
    return splits


def flags_of(options: argparse.Namespace) -> list[str]:
    """The flags of the recipe."""
    names = ("source_lang", "target_lang") if options.task == "translation" else ("text_column", "summary_column")
    flags = {
        **{f"{split}_file": options.folder / f"{split}.jsonl" for split in ("train", "validation", "test")},
        **dict(zip(names, options.columns, strict=True)),
        "model_type": "bart",
        "config_overrides": ",".join(f"{name}={value}" for name, value in SIZES.items()),
        "tokenizer_name": options.folder / "tokenizer",
        "output_dir": options.folder / "output",
        "max_source_length": options.max_source_length,
        "max_target_length": options.max_target_length,
        "per_device_train_batch_size": options.batch,
        "per_device_eval_batch_size": options.batch,
        "max_steps": options.steps,
        "learning_rate": options.learning_rate,
        "warmup_ratio": 0.1,
        "eval_strategy": "steps",
        "eval_steps": max(options.steps // 4, 1),
        "logging_steps": max(options.steps // 8, 1),
        "save_strategy": "no",
    }
    switches = ["do_train", "do_eval", "do_predict", "predict_with_generate", "eval_on_start", "overwrite_output_dir"]
    return [*(f"--{name}={value}" for name, value in flags.items()), *(f"--{name}" for name in switches)]


def measured_again(task: str, predictions: list[str], references: list[str]) -> dict[str, float]:
    """The measures as Hugging Face's scripts have them from `evaluate`."""
    if task == "translation":
        import sacrebleu

        return {"bleu": sacrebleu.corpus_bleu(predictions, [references]).score}
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import BootstrapAggregator

    scorer, aggregator = RougeScorer(list(KINDS), use_stemmer=True), BootstrapAggregator()
    for pair in zip(references, predictions, strict=True):
        aggregator.add_scores(scorer.score(*("\n".join(sentences(text.strip())) for text in pair)))
    return {name: 100 * float(score.mid.fmeasure) for name, score in aggregator.aggregate().items()}


def report(options: argparse.Namespace, results: dict[str, float], references: list[str]) -> str:
    """What was measured while the model trained, and of the test data by both."""
    log = [json.loads(line) for line in (options.folder / "output" / "log_history.jsonl").read_text().splitlines()]
    written = (options.folder / "output" / "generated_predictions.txt").read_text(encoding="utf-8").splitlines()
    again = measured_again(options.task, written, references)
    lines = ["| step | loss | " + " | ".join(again) + " |", "|---|---|" + "---|" * len(again)]
    for entry in (entry for entry in log if "eval_loss" in entry):
        values = (f"{entry[f'eval_{name}']:.2f}" for name in again)
        lines.append(f"| {entry['step']} | {entry['eval_loss']:.3f} | " + " | ".join(values) + " |")
    for name, value in again.items():
        ours = results[f"predict_{name}"]
        lines.append(f"\n{name} of the test rows: {ours:.4f}, computed as Hugging Face's script does: {value:.4f}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--files", type=Path, nargs="+", required=True, help="two files of lines, or one of JSON lines")
    parser.add_argument("--columns", nargs=2, required=True, help="names of source and target: languages, or columns")
    parser.add_argument("--folder", type=Path, default=Path("benchmark_output/writing"))
    parser.add_argument("--held_out", type=int, default=400, help="rows at the end that are not learned")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--max_source_length", type=int, default=64)
    parser.add_argument("--max_target_length", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    return parser


def main() -> None:
    options = parser().parse_args()
    arguments, run = TASKS[options.task]
    splits = prepare(options)
    results = run(parse(arguments, flags_of(options)))
    print(report(options, results, [row[options.columns[1]] for row in splits["test"]]))


if __name__ == "__main__":
    main()
