"""Sampling: what restrictions keep, and that draws of `generate` have the exact frequencies, for every option."""

import numpy as np
import pytest
import tensorflow as tf

import tfheads
from tests.tiny_models import gpt2_config
from tfheads.generation.sampling import EXCLUDED, keep_above, keep_eta, keep_min_p, keep_top_k, keep_top_p, keep_typical

TOKENS = 12
PROMPT = [[3, 1, 4, 1, 5]]
DRAWS = 20_000


@pytest.fixture(scope="module")
def gpt2():
    config = gpt2_config(vocab_size=TOKENS, initializer_range=0.12, n_positions=8, eos_token_id=11)
    return tfheads.AutoModelForCausalLM.from_config(config, seed=1)


@pytest.fixture(scope="module")
def logits(gpt2):
    return gpt2(PROMPT).logits.numpy()[0, -1].astype("float64")


def softmax(logits):
    exponents = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def first_until(order, probabilities, mass):
    """Which tokens are kept, from the smallest `order` on until they add up to `mass`."""
    kept = np.zeros(len(order), bool)
    for token in np.argsort(order):
        if probabilities[kept].sum() < mass:
            kept[token] = True
    return kept


def restricted(logits, option, value):
    """Which tokens an option keeps, by its definition."""
    p = softmax(logits)
    entropy = -(p * np.log(p)).sum()
    return {
        "top_k": lambda: logits >= np.sort(logits)[-value],
        "top_p": lambda: first_until(-logits, p, value),
        "min_p": lambda: p >= value * p.max(),
        "typical_p": lambda: first_until(np.abs(-np.log(p) - entropy), p, value),
        "epsilon_cutoff": lambda: (p >= value) | (p == p.max()),
        "eta_cutoff": lambda: (p >= min(value, np.sqrt(value) * np.exp(-entropy))) | (p == p.max()),
    }[option]()


def surprise(tokens, expected) -> float:
    """Pearson's chi-squared; fails for a token that cannot be."""
    counts = np.bincount(tokens, minlength=TOKENS)
    possible = expected > 0
    assert not counts[~possible].any()
    expected = expected[possible] * len(tokens)
    return (np.square(counts[possible] - expected) / expected).sum()


LIMIT = 55  # beyond the 1e-6 quantile of chi-squared with 11 degrees of freedom
ONE_BY_ONE = {
    "top_k": 3,
    "top_p": 0.8,
    "min_p": 0.15,
    "typical_p": 0.6,
    "epsilon_cutoff": 0.05,
    "eta_cutoff": 0.3,
}


def draws(model, **options):
    options = {"top_k": 0, "eos_token_id": [], "max_new_tokens": 1, "seed": 7, "jit_compile": False, **options}
    return model.generate(PROMPT, do_sample=True, num_return_sequences=DRAWS, **options)[:, -1]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_frequencies_are_those_of_the_softmax(gpt2, logits, temperature):
    assert surprise(draws(gpt2, temperature=temperature), softmax(logits / temperature)) < LIMIT


@pytest.mark.parametrize("option", ONE_BY_ONE)
def test_each_restriction_leaves_its_frequencies(gpt2, logits, option):
    kept = restricted(logits, option, ONE_BY_ONE[option])
    assert 1 < kept.sum() < TOKENS
    expected = np.where(kept, softmax(logits), 0.0)
    assert surprise(draws(gpt2, **{option: ONE_BY_ONE[option]}), expected / expected.sum()) < LIMIT


def test_restrictions_work_one_after_the_other(gpt2, logits):
    options = {"top_k": 9, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.85}
    left = logits / 0.7
    for option, value in options.items():
        possible = np.flatnonzero(np.isfinite(left))
        kept = restricted(left[possible], option, value)
        left[possible[~kept]] = -np.inf
    assert np.isfinite(left).sum() > 2
    assert surprise(draws(gpt2, temperature=0.7, **options), softmax(left)) < LIMIT


def test_drawn_beams_are_drawn_without_replacement(gpt2, logits):
    """Two beams and one step: the likelier of two draws comes back."""
    made = gpt2.generate(
        PROMPT * DRAWS,
        do_sample=True,
        num_beams=2,
        top_k=0,
        max_new_tokens=1,
        eos_token_id=[],
        seed=3,
        jit_compile=False,
    )
    p = softmax(logits)
    pair = p[:, None] * p[None, :] / (1 - p[:, None])  # first one, then the other
    pair[np.diag_indices(TOKENS)] = 0.0
    likelier = p[:, None] > p[None, :]
    expected = (np.where(likelier, pair, 0) + np.where(likelier, pair.T, 0)).sum(1)
    assert expected.sum() == pytest.approx(1.0)
    assert surprise(made[:, -1], expected) < LIMIT


def test_later_tokens_are_drawn_given_the_earlier(gpt2):
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 2, "eos_token_id": [], "seed": 5, "jit_compile": False}
    made = gpt2.generate(PROMPT, num_return_sequences=DRAWS, **options)
    first = np.bincount(made[:, 5]).argmax()
    then = made[made[:, 5] == first, 6]
    assert len(then) > 2000
    assert surprise(then, softmax(gpt2([[*PROMPT[0], first]]).logits.numpy()[0, -1].astype("float64"))) < LIMIT


# What is kept, on many rows with ties and extremes.


def random_logits() -> np.ndarray:
    generator = np.random.RandomState(0)
    logits = generator.standard_normal((40, 30)).astype("float32") * 3
    logits[10:20] = logits[10:20].round()  # many ties
    logits[20:25] = -np.abs(logits[20:25])
    logits[25] = 0.0
    logits[26, :] = -0.0
    logits[27, 3] = EXCLUDED
    return logits


@pytest.mark.parametrize("k", [1, 2, 7, 30, 100])
def test_top_k_equals_numpy(k):
    logits = random_logits()
    least = np.sort(logits, 1)[:, -min(k, 30)][:, None]
    expected = np.where(logits >= least, logits, np.float32(EXCLUDED))
    np.testing.assert_array_equal(keep_top_k(tf.constant(logits), tf.constant(k)), expected)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9, 0.999])
def test_top_p_equals_numpy(p):
    logits = random_logits()
    kept = keep_top_p(tf.constant(logits), tf.constant(p)).numpy() != np.float32(EXCLUDED)
    probabilities = softmax(logits.astype("float64"))
    likelier = np.stack([[row[row > one].sum() for one in row] for row in probabilities])
    clear = (np.abs(likelier - p) > 1e-5) & np.isfinite(logits)  # where float32 can tell
    np.testing.assert_array_equal(kept[clear], (likelier < p)[clear])
    assert clear.mean() > 0.99 and kept.any(1).all()


@pytest.mark.parametrize("keep", [keep_top_p, keep_min_p, keep_typical, keep_above, keep_eta])
def test_a_least_number_of_tokens_stays(keep):
    logits = np.random.RandomState(1).standard_normal((50, 30)).astype("float32") * 9
    strict = 0.9 if keep in (keep_min_p, keep_above, keep_eta) else 0.01
    for least in (1, 3):
        kept = np.isfinite(keep(tf.constant(logits), tf.constant(strict), least).numpy())
        assert kept.sum(1).min() == least
        if keep is not keep_typical:
            assert kept[np.arange(50)[:, None], np.argsort(-logits)[:, :least]].all()
