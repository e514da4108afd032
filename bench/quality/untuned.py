"""Writes a folder of labelled sets that no default of Lapwing was chosen on, for `lapwing bench quality --data FOLDER`.

    python untuned.py FOLDER

Everything comes out of scikit-learn's own package (requirements.txt): its small tables, with one class made rare and
called anomalous, and rows drawn from mixtures fitted to them, with four kinds of anomalies. A fixed seed: the same
versions write the same bytes.
"""

import json
import os
import sys

import numpy as np
from sklearn import datasets
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
manifest = []


def write(collection, name, rows, labels):
    order = np.random.default_rng(7).permutation(len(rows))
    rows, labels = rows[order], labels[order].astype(int)
    names = [f"f{i}" for i in range(rows.shape[1])]
    with open(os.path.join(folder, name + ".csv"), "w") as f:
        f.write(",".join(names + ["label"]) + "\n")
        for row, label in zip(rows, labels):
            f.write(",".join([f"{x:.6g}" for x in row] + [str(label)]) + "\n")
    manifest.append({
        "file": name + ".csv", "set": collection, "kind": "tabular", "delimiter": ",", "header": True, "rows": len(rows),
        "features": names, "label": "label", "exclude": [], "time": None, "key": None, "order": "as published",
        "anomalies": int(labels.sum()),
    })


def rare(name, rows, anomalous, share):
    """All rows of the other classes, and of the anomalous one as many as make up the share."""
    rng = np.random.default_rng(11)
    normal, odd = np.flatnonzero(~anomalous), np.flatnonzero(anomalous)
    odd = rng.choice(odd, min(len(odd), max(5, int(share * len(normal)))), replace=False)
    keep = np.concatenate([normal, odd])
    write("rare-class", name, rows[keep], anomalous[keep])


digits = datasets.load_digits()
for digit in range(10):
    rare(f"digits-{digit}", digits.data, digits.target == digit, 0.03)
cancer = datasets.load_breast_cancer()
rare("cancer-malignant", cancer.data, cancer.target == 0, 0.05)
rare("cancer-benign", cancer.data, cancer.target == 1, 0.05)
wine = datasets.load_wine()
for kind in range(3):
    rare(f"wine-{kind}", wine.data, wine.target == kind, 0.08)


def drawn(name, base, components, n=5000, share=0.05):
    """Normal rows of a mixture fitted to a real table, and anomalies of four kinds, each a set of its own."""
    rng = np.random.default_rng(13)
    base = StandardScaler().fit_transform(base)
    base = base[:, base.std(axis=0) > 0][:, :20]
    mixture = GaussianMixture(components, reg_covar=1e-2, random_state=13).fit(base)
    normal = mixture.sample(n)[0]
    odd = int(share * n)
    wide = GaussianMixture(components, random_state=13)
    wide.weights_, wide.means_ = mixture.weights_, mixture.means_
    wide.covariances_ = 5 * mixture.covariances_
    kinds = {
        "local": wide.sample(odd)[0],  # around the same middles, further out
        "global": rng.uniform(1.1 * normal.min(axis=0), 1.1 * normal.max(axis=0), (odd, normal.shape[1])),
        "clustered": mixture.sample(odd)[0] * 0.3 + 2.5 * mixture.means_[0] + 1,  # close together, elsewhere
        "unrelated": np.column_stack([rng.permutation(normal[:, j])[:odd] for j in range(normal.shape[1])]),  # each column as usual
    }
    for kind, rows in kinds.items():
        write("drawn-" + kind, f"{name}-{kind}", np.vstack([normal, rows]), np.arange(n + odd) >= n)


drawn("like-cancer", cancer.data, 3)
drawn("like-wine", wine.data, 3)
drawn("like-digits", digits.data[:, [i for i in range(64) if digits.data[:, i].std() > 1]], 5)
drawn("like-diabetes", datasets.load_diabetes(scaled=False).data, 2)

with open(os.path.join(folder, "manifest.json"), "w") as f:
    json.dump(manifest, f, indent=1)
