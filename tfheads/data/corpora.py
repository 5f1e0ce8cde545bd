"""Corpora that need no download."""

import datasets


def python_reference() -> datasets.Dataset:
    """The Python language reference that every CPython ships (`pydoc_data.topics`): one document a row.

    Column `text`, about 80 documents and 700 000 characters, sorted by topic. The text belongs to the running Python,
    so two minor versions of it give slightly different corpora.
    """
    from pydoc_data import topics

    texts = [topics.topics[name].strip() + "\n" for name in sorted(topics.topics)]
    return datasets.Dataset.from_dict({"text": texts})
