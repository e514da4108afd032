"""PyTorch as a peer of lapwing bench: each line on standard input is a request, answered by a line of JSON.

It times itself in this process: what goes to and fro between the programs is no part of a figure.

score: makes the network with the given weights and a batch of rows; run calls it for some seconds.
train: makes the network anew from the given weights; steps takes so many minibatches; loss is over the first batch.
"""

import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print must not stand among the answers
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # on the processors that Lapwing has

import numpy as np
import torch

acts = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}
things = {}


def compiled(function):
    """Each shape anew: else a second shape gets code for any shape, and the ninth none at all."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def network(request):
    """Layers of the given widths; the file has weights and biases in the order of the layers, float32."""
    raw, at, layers = np.fromfile(request["weights"], dtype="<f4"), 0, []
    widths = request["widths"]
    for i, (wide, out) in enumerate(zip(widths, widths[1:])):
        layer = torch.nn.Linear(wide, out)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(raw[at : at + wide * out].reshape(out, wide)))
            at += wide * out
            layer.bias.copy_(torch.from_numpy(raw[at : at + out]))
            at += out
        layers.append(layer)
        if request["acts"][i] != "linear":
            layers.append(acts[request["acts"][i]]())
    assert at == len(raw), "the file has more weights than the layers"
    return torch.nn.Sequential(*layers)


def rows_of(request):
    return torch.from_numpy(np.fromfile(request["rows"], dtype="<f4").reshape(-1, request["widths"][0]))


def score(request):
    net = network(request)
    rows = rows_of(request)[: request["batch"]].contiguous()

    def errors(x):
        return torch.linalg.vector_norm(x - net(x), dim=1)

    call = compiled(errors) if request["compiled"] else errors
    with torch.inference_mode():
        for _ in range(3):
            call(rows)
        things[request["name"]] = (call, rows)
        call(rows).numpy().astype("<f4").tofile(request["out"])
    return {}


def run(request):
    call, rows = things[request["name"]]
    calls, batch, begin = 0, 1, time.perf_counter()
    with torch.inference_mode():
        while True:
            for _ in range(batch):
                call(rows)
            calls += batch
            elapsed = time.perf_counter() - begin
            if elapsed >= request["seconds"]:
                return {"calls": calls, "seconds": elapsed}
            if elapsed < request["seconds"] / 64:
                batch *= 2


def train(request):
    """A step that is compiled or not; steps starts it from the weights, so each round does the same."""
    rows = rows_of(request)
    held = request.get("held", 0)
    rows, judged = (rows[:-held], rows[-held:]) if held else (rows, rows[: request["judged"]])
    batch, n = request["batch"], len(rows)
    net = network(request)

    def loss_of(x):
        return torch.nn.functional.mse_loss(net(x), x)

    call = compiled(loss_of) if request["compiled"] else loss_of
    start = [p.detach().clone() for p in net.parameters()]

    def steps(count, every=0, goal=0.0):
        with torch.no_grad():
            for p, s in zip(net.parameters(), start):
                p.copy_(s)
        optimiser = torch.optim.Adam(net.parameters(), lr=request["rate"], fused=True)
        chunks = [rows[i * batch : (i + 1) * batch] for i in range(n // batch)]
        begin = time.perf_counter()
        for i in range(count):
            optimiser.zero_grad(set_to_none=True)
            call(chunks[i % len(chunks)]).backward()
            optimiser.step()
            if every and (i + 1) % every == 0:
                with torch.no_grad():
                    if float(loss_of(judged)) <= goal:
                        break
        elapsed = time.perf_counter() - begin
        with torch.no_grad():
            loss = float(loss_of(judged))
        return {"seconds": elapsed, "loss": loss}

    steps(3)
    things[request["name"]] = steps
    return {}


def answer(what):
    answers.write(json.dumps(what) + "\n")
    answers.flush()


answer({"versions": {"torch": torch.__version__.split("+")[0]}})
ops = {"score": score, "run": run, "train": train, "steps": lambda q: things[q["name"]](q["steps"], q.get("every", 0), q.get("goal", 0.0))}
for line in sys.stdin:
    try:
        request = json.loads(line)
        torch.set_num_threads(request.get("threads", 1))
        answer(ops[request["op"]](request))
    except Exception as error:  # a peer that fails is a row that says so
        answer({"error": f"{type(error).__name__}: {error}"})
