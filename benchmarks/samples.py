"""What a model says: greedy, sampled and with beams.

    python -m benchmarks.samples DIRECTORY "Once upon a time" [--max_new_tokens 80] [--seed 1]

DIRECTORY holds a causal language model with its tokenizer.
"""

import argparse

import tfheads
from tfheads.checkpoints.tokenizers import load_tokenizer

WAYS = {
    "greedy": {},
    "sampled (temperature 0.8, top_p 0.95)": {"do_sample": True, "temperature": 0.8, "top_p": 0.95},
    "beams (4)": {"num_beams": 4},
}


def main() -> None:
    """Prints a text for each way to search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("prompt")
    parser.add_argument("--max_new_tokens", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(arguments.directory)
    model = tfheads.AutoModelForCausalLM.from_pretrained(arguments.directory)
    inputs = tokenizer(arguments.prompt, return_tensors="np")
    for name, options in WAYS.items():
        made = model.generate(inputs, max_new_tokens=arguments.max_new_tokens, seed=arguments.seed, **options)
        print(f"{name}: {tokenizer.decode(made[0], skip_special_tokens=True)}\n")


if __name__ == "__main__":
    main()
