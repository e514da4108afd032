#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the rows of a model from records, by docs/records.md and the feature spec in the model: another reading of the
rules than Lapwing's own, so that a live run compares decoding as well as scoring.

    rows.py MODEL RECORDS.jsonl ROWS.f32    one JSON record a line; rows are little-endian float32, NaN is missing
"""

import json
import re
import sys

import numpy as np
import onnx

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Digits(str):
    """A JSON number as written: a category's text is its digits."""


def refuse(word):
    raise ValueError(f"{word} is not JSON")


def read(line):
    return json.loads(line, parse_float=Digits, parse_int=Digits, parse_constant=refuse)


def keys(path):
    return [part.replace("\0", "\\").replace("\1", ".") for part in path.replace("\\\\", "\0").replace("\\.", "\1").split(".")]


def find(record, path):
    for key in path:
        if isinstance(record, dict):
            record = record.get(key)
        elif isinstance(record, list) and key.isdigit():
            record = record[int(key)] if int(key) < len(record) else None
        else:
            return None
    return record


def number(value):
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return float(value)
    return np.nan


def boolean(value):
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    value = number(value)
    return value if value in (0, 1) else np.nan


def category(value, known):
    if isinstance(value, bool):
        value = "true" if value else "false"
    hot = [float(isinstance(value, str) and value == k) for k in known]
    return hot + [float(not any(hot))]


def row(record, fields):
    out = []
    for field, path in fields:
        value = find(record, path)
        match field["type"]:
            case "number":
                out.append(number(value))
            case "boolean":
                out.append(boolean(value))
            case "category":
                out.extend(category(value, field["categories"]))
    return out


def main(model, records, rows):
    meta = {p.key: p.value for p in onnx.load(model).metadata_props}
    spec = json.loads(meta["lapwing.spec"])
    if spec["format"] != "json":
        sys.exit(f"records are {spec['format']}, not JSON")
    fields = [(f, keys(f["name"])) for f in spec["fields"]]
    with open(records, encoding="utf-8") as lines:
        made = [row(read(line), fields) for line in lines]
    with np.errstate(over="ignore"):
        np.array(made, dtype="<f4").tofile(rows)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(*sys.argv[1:])
