"""Classes of characters, read from the rust library's pre-tokenisers for every code point."""

import json
from functools import lru_cache

import numpy as np

from tfheads.preprocessing import code_points, description


@lru_cache(maxsize=8)
def character_classes(part: str, neighbours: str) -> np.ndarray:
    """For every code point: the first of `neighbours` with which the rust pre-tokeniser keeps it in one word.

    Args:
        part: the description of the pre-tokeniser.
        neighbours: characters of different kinds; each is put on both sides of the code points not yet settled.

    Returns:
        The number of the neighbour, from 1; 0 where there is none, and for surrogates.
    """
    split = description.rust("pre_tokenizer", json.loads(part)).pre_tokenize_str
    classes = np.zeros(code_points.CODE_POINTS, np.int32)
    left = np.array(list(code_points.probed()))
    for number, neighbour in enumerate(neighbours, start=1):
        for start in range(0, len(left), code_points.CHUNK):
            chunk = left[start : start + code_points.CHUNK]
            text = neighbour + neighbour.join(map(chr, chunk)) + neighbour
            inside = np.ones(len(text) + 1, bool)
            inside[[end for _, span in split(text) for end in span]] = False
            at = 1 + 2 * np.arange(len(chunk))
            classes[chunk[inside[at] & inside[at + 1]]] = number
        left = left[classes[left] == 0]
    for first, alike in code_points.uniform():
        classes[alike.start : alike.stop] = classes[first]
    return classes
