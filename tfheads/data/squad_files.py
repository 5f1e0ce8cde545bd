"""Files of questions: JSON as SQuAD publishes it, articles of paragraphs of questions, or a flat list under `data`."""

import json
from pathlib import Path

import datasets

from tfheads.data.sources import Files, check_utf8, find_files

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "title": datasets.Value("string"),
        "context": datasets.Value("string"),
        "question": datasets.Value("string"),
        "answers": {
            "text": datasets.List(datasets.Value("string")),
            "answer_start": datasets.List(datasets.Value("int32")),
        },
    }
)


def read_squad(files: Files) -> datasets.Dataset:
    """The questions as rows: `id`, `title`, `context`, `question`, `answers` with lists `text` and `answer_start`.

    Args:
        files: JSON files; see `tfheads.data.sources.load_text`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is not of one of the two forms.
    """
    rows = []
    for path in find_files(files):
        check_utf8(path)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
            articles = content["data"]
            for article in articles:
                rows += _of_article(article) if "paragraphs" in article else [_row(article, article, article)]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not in SQuAD's format: {type(error).__name__} {error}") from None
    if not rows:
        raise ValueError(f"{files} holds no questions")
    return datasets.Dataset.from_list(rows, features=FEATURES)


def _of_article(article: dict) -> list[dict]:
    return [_row(article, paragraph, question) for paragraph in article["paragraphs"] for question in paragraph["qas"]]


def _row(article: dict, paragraph: dict, question: dict) -> dict:
    answers = question.get("answers", [])
    if isinstance(answers, list):  # SQuAD has a list of answers, datasets of the Hub have lists in a dictionary
        answers = {key: [answer[key] for answer in answers] for key in ("text", "answer_start")}
    return {
        "id": str(question["id"]),
        "title": str(article.get("title", "")),
        "context": paragraph["context"],
        "question": question["question"],
        "answers": {"text": list(answers["text"]), "answer_start": list(answers["answer_start"])},
    }
