"""What Weights & Biases and TensorBoard wrote, read back."""

import json
import struct

import tensorflow as tf
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7


def records(path):
    """The records of a W&B run file: LevelDB's log format with a protocol buffer in each record."""
    content, at, whole = path.read_bytes(), HEADER, b""
    assert content[:4] == b":W&B"
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        whole += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a record in one piece, or the last piece of one
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def read(directory):
    """(ids, history rows, config) of all runs in a directory, oldest first."""
    ids, rows, config = [], [], {}
    for path in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.append(record.run.run_id)
            if kind == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            for update in {"run": record.run.config.update, "config": record.config.update}.get(kind, ()):
                config[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
    return ids, rows, config


def events(directory):
    """(tag, step, value) of all that TensorBoard has from a directory, oldest first."""
    found = []
    for path in sorted(map(str, directory.glob("events.*"))):
        for raw in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(raw.numpy())
            found += [(value.tag, event.step, value) for value in event.summary.value]
    return found
