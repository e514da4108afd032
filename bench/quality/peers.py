"""The detectors that Lapwing is measured next to: each line on standard input is one to fit and to score with.

A request is JSON: peer, train and test (files of float32, row after row), columns, seed, out (the file for float64
scores: the training rows', then the test rows'). The answer is a line of JSON: seconds, or error. Higher scores are
more anomalous. Everything runs as its documentation has it, with nothing set but seeds and threads.
"""

import importlib.metadata
import json
import os
import sys
import time

threads = int(sys.argv[1])
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = str(threads)  # before anything that reads them is imported
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # on the processors that Lapwing has

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print must not stand among the answers

import numpy as np


def isolation_forest(seed):
    from sklearn.ensemble import IsolationForest

    model = IsolationForest(random_state=seed, n_jobs=threads)
    return model.fit, lambda rows: -model.score_samples(rows)


def pca_residual(seed):
    from sklearn.decomposition import PCA

    model = PCA(n_components=0.9, random_state=seed)
    return model.fit, lambda rows: ((rows - model.inverse_transform(model.transform(rows))) ** 2).sum(axis=1)


def pyod(module, name, **settings):
    def make(seed):
        cls = getattr(importlib.import_module("pyod.models." + module), name)
        chosen = {key: seed if value == "seed" else threads if value == "threads" else value for key, value in settings.items()}
        model = cls(**chosen)

        def score(rows):
            # PyOD keeps the training rows' own scores: a neighbour is never the row itself.
            return model.decision_scores_ if rows is score.train else model.decision_function(rows)

        def fit(rows):
            score.train = rows
            model.fit(rows)

        return fit, score

    return make


def pyod_pca(seed):
    from pyod.models.pca import PCA

    # It divides by each component's variance, and where columns determine each other some have none: every score
    # would be infinite. Those components are left out.
    model = None

    def fit(rows):
        nonlocal model
        model = PCA(n_components=int(np.linalg.matrix_rank(rows)), random_state=seed)
        model.fit(rows)

    return fit, lambda rows: model.decision_function(rows)


def neural(module, name):
    make = pyod(module, name, random_state="seed", verbose=0)

    def limited(seed):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        return make(seed)

    return limited


peers = {
    "iforest": isolation_forest,
    "pca_residual": pca_residual,
    "pca": pyod_pca,
    "ecod": pyod("ecod", "ECOD"),  # its n_jobs are processes, whose start costs more than they save
    "hbos": pyod("hbos", "HBOS"),
    "knn": pyod("knn", "KNN", n_jobs="threads"),
    "autoencoder": neural("auto_encoder", "AutoEncoder"),
    "vae": neural("vae", "VAE"),
}


def rows_of(path, columns):
    return np.fromfile(path, dtype="<f4").reshape(-1, columns).astype(np.float64)


warmed = set()


def warm(peer):
    """What is compiled or loaded at a first use is no part of what a peer takes."""
    if peer not in warmed:
        rows = np.random.default_rng(0).normal(size=(200, 4))
        fit, score = peers[peer](0)
        fit(rows)
        score(rows[:100])
        warmed.add(peer)


def measure(request):
    warm(request["peer"])
    train, test = rows_of(request["train"], request["columns"]), rows_of(request["test"], request["columns"])
    # Missing values become the history's median, columns have mean 0 and standard deviation 1, constant ones go.
    with np.errstate(all="ignore"):
        middle = np.nan_to_num(np.nanmedian(np.where(np.isfinite(train), train, np.nan), axis=0))
    train, test = (np.where(np.isfinite(x), x, middle) for x in (train, test))
    mean, sd = train.mean(axis=0), train.std(axis=0)
    varies = sd > 1e-12 * np.abs(mean)
    train, test = (np.ascontiguousarray((x[:, varies] - mean[varies]) / sd[varies]) for x in (train, test))
    begin = time.perf_counter()
    fit, score = peers[request["peer"]](int(request["seed"]))
    fit(train)
    judged = score(test)
    seconds = time.perf_counter() - begin
    scores = np.concatenate([score(train), judged]).astype("<f8")
    scores.tofile(request["out"])
    return {"seconds": seconds}


def answer(what):
    answers.write(json.dumps(what) + "\n")
    answers.flush()


versions = {}
for name in ("numpy", "scipy", "scikit-learn", "pyod", "torch"):
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
answer({"versions": versions})
for line in sys.stdin:
    try:
        answer(measure(json.loads(line)))
    except Exception as error:  # a peer that fails is a row that says so
        answer({"error": f"{type(error).__name__}: {error}"})
