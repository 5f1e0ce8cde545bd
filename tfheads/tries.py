"""Trees of sequences that share their beginnings."""

from collections.abc import Hashable, Iterable, Sequence


def trie(keys: Iterable[Sequence[Hashable]]) -> tuple[list[dict], list[int]]:
    """A tree of sequences, whose nodes are numbers from the root, 0, on.

    Returns:
        The children of each node by what leads to them, and the number of the last key that ends there, otherwise -1.
    """
    children: list[dict] = [{}]
    ends = [-1]
    for number, key in enumerate(keys):
        node = 0
        for step in key:
            if step not in children[node]:
                children[node][step] = len(children)
                children.append({})
                ends.append(-1)
            node = children[node][step]
        ends[node] = number
    return children, ends
