#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds Lapwing's model files against onnx.checker and ONNX Runtime.

    check.py cases DIR                      check every case under DIR; exit 1 if one fails
    check.py score MODEL ROWS.f32 OUT.f32   write ONNX Runtime's scores of the rows

Files *.f32 are little-endian float32, row by row. A case is a folder with

    model.onnx, rows.f32, score.f32, reconstruction.f32, contributions.f32
    case.json    {"threshold": …, "ties": …}   the threshold that the tolerance refers to; the rows for which
                                            rounding may find another nearest prototype: their contributions
                                            are not compared, only held to be >= 0 and to add up to the score
    pruned.onnx  (optional)                 the same with the output score alone

Each case is scored as a batch of 0 rows, row by row and as one batch.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

# Agreement between engines, by docs/formats.md.
RELATIVE = 2e-5
ABSOLUTE = 1e-5  # of the threshold

OUTPUTS = ["score", "reconstruction", "contributions"]


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def floats(path, width=None):
    values = np.fromfile(path, dtype="<f4")
    return values if width is None else values.reshape(-1, width)


def width_of(model):
    return model.get_inputs()[0].shape[1]


def excess(got, want, scale):
    """The largest |got − want| as a share of what is allowed; two values that are not finite agree."""
    if want.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        share = np.abs(got.astype(np.float64) - want.astype(np.float64)) / scale
    both = ~np.isfinite(got) & ~np.isfinite(want)
    return float(np.max(np.where(both, 0.0, np.where(np.isfinite(share), share, np.inf))))


def compare(got, want, threshold, ties):
    """Shares of the allowed error, by output."""
    want64 = [w.astype(np.float64) for w in want]
    out = {"score": excess(got[0], want[0], RELATIVE * np.abs(want64[0]) + ABSOLUTE * threshold)}
    # A row whose score is not finite is reported as such, and the rest of it is not used.
    usable = np.isfinite(want[0])
    largest = np.abs(want64[1]).max(axis=1, keepdims=True)
    out["reconstruction"] = excess(got[1][usable], want[1][usable], np.maximum(RELATIVE * largest, 1e-37)[usable])
    total = got[2][usable].astype(np.float64).sum(axis=1)
    out["sum of contributions"] = excess(total, want64[0][usable], RELATIVE * np.abs(want64[0][usable]) + ABSOLUTE * threshold)
    if (got[2][usable] < 0).any():
        out["sum of contributions"] = float("inf")
    usable[ties] = False
    largest = np.abs(want64[2]).max(axis=1, keepdims=True)
    out["contributions"] = excess(got[2][usable], want[2][usable], (RELATIVE * largest + ABSOLUTE * threshold)[usable])
    return out


def check(folder):
    """Faults of one case, the worst shares of the allowed error, the rows, those whose score is not finite, ties."""
    faults = []
    path = folder / "model.onnx"
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    about = json.loads((folder / "case.json").read_text())
    run = session(path)
    width = width_of(run)
    if [o.name for o in run.get_outputs()] != OUTPUTS or [i.name for i in run.get_inputs()] != ["features"]:
        faults.append("inputs or outputs have other names")
    rows = floats(folder / "rows.f32", width)
    want = [floats(folder / "score.f32"), floats(folder / "reconstruction.f32", width), floats(folder / "contributions.f32", width)]

    none = run.run(OUTPUTS, {"features": rows[:0]})
    if [o.shape for o in none] != [(0,), (0, width), (0, width)]:
        faults.append(f"no rows give the shapes {[o.shape for o in none]}")

    whole = run.run(OUTPUTS, {"features": rows})
    alone = [np.concatenate(part) for part in zip(*(run.run(OUTPUTS, {"features": rows[i : i + 1]}) for i in range(len(rows))))]
    worst = {}
    for way, got in (("one batch", whole), ("row by row", alone)):
        if [o.shape for o in got] != [w.shape for w in want]:
            faults.append(f"{way}: shapes {[o.shape for o in got]}")
            continue
        for name, share in compare(got, want, about["threshold"], about["ties"]).items():
            worst[name] = max(worst.get(name, 0.0), share)
            if not share <= 1:
                faults.append(f"{way}: {name} is off by {share:.3g} times what is allowed")

    pruned = folder / "pruned.onnx"
    if pruned.exists():
        onnx.checker.check_model(onnx.load(str(pruned)), full_check=True)
        (score,) = session(pruned).run(None, {"features": rows})
        if not np.array_equal(score, whole[0], equal_nan=True):
            faults.append("the pruned model gives other scores")
    return faults, worst, len(rows), int(np.count_nonzero(~np.isfinite(want[0]))), len(about["ties"])


def check_all(root):
    folders = sorted(p.parent for p in pathlib.Path(root).glob("**/model.onnx"))
    if not folders:
        print(f"no case under {root}", file=sys.stderr)
        return 1
    failed, rows, beyond, ties, worst = 0, 0, 0, 0, {}
    for folder in folders:
        try:
            faults, shares, n, infinite, tied = check(folder)
        except Exception as fault:  # the checker and the runtime have many kinds of their own
            faults, shares, n, infinite, tied = [f"{type(fault).__name__}: {fault}"], {}, 0, 0, 0
        rows += n
        beyond += infinite
        ties += tied
        for name, share in shares.items():
            if share > worst.get(name, (-1.0,))[0]:
                worst[name] = (share, folder.name)
        for fault in faults:
            print(f"FAILED {folder.name}: {fault}")
        failed += bool(faults)
    for name, (share, where) in worst.items():
        print(f"{name}: at most {share:.3f} of the allowed error ({where})")
    print(f"{len(folders)} models, {rows} rows ({beyond} beyond float32 in both, {ties} near ties), {failed} failed; onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    return 1 if failed else 0


def score(model, rows, out):
    run = session(model)
    (scores,) = run.run(["score"], {"features": floats(rows, width_of(run))})
    scores.astype("<f4").tofile(out)
    print(f"{len(scores)} rows scored by onnxruntime {onnxruntime.__version__}")
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cases", root]:
            sys.exit(check_all(root))
        case ["score", model, rows, out]:
            sys.exit(score(model, rows, out))
        case _:
            print(__doc__, file=sys.stderr)
            sys.exit(2)
