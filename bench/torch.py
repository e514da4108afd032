"""PyTorch as a peer of lapwing bench: each line on standard input is a request, answered by a line of JSON.

It times itself in this process: what goes to and fro between the programs is no part of a figure. Its argument is the device: cpu, or
cuda:0. How is eager, compiled, or graphs: then a CUDA graph launches all that a call launches.

score: makes the network with the given weights and a batch of rows; run calls it for some seconds.
train: makes the networks anew from the given weights; steps takes so many minibatches, starting from the weights; timed goes on for
some seconds; loss is over the first batch, of the last network.
"""

import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print must not stand among the answers
device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
if device == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # on the processors that Lapwing has

import numpy as np
import torch

acts = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}
things = {}


def settle():
    """Waits for the GPU, which works beside this program."""
    if device != "cpu":
        torch.cuda.synchronize()


def compiled(function):
    """Each shape anew: else a second shape gets code for any shape, and the ninth none at all."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def graphed(function):
    """One launch of all that the function launches, over tensors that stay where they are. The first calls are for what is made once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()

    def call():
        graph.replay()
        return result

    return call


class Stacked(torch.nn.Module):
    """A layer of many networks at once, each with weights of its own."""

    def __init__(self, weights, biases):
        super().__init__()
        self.weights, self.biases = torch.nn.Parameter(weights), torch.nn.Parameter(biases)

    def forward(self, x):
        return torch.baddbmm(self.biases, x, self.weights)


def network(request):
    """Layers of the given widths; the file has weights and biases in the order of the layers, float32, network by network."""
    count, widths = request.get("networks", 1), request["widths"]
    raw, at, layers = torch.from_numpy(np.fromfile(request["weights"], dtype="<f4").reshape(count, -1)), 0, []
    for i, (wide, out) in enumerate(zip(widths, widths[1:])):
        weights = raw[:, at : at + wide * out].reshape(count, out, wide)
        at += wide * out
        biases = raw[:, at : at + out]
        at += out
        if count == 1:
            layer = torch.nn.Linear(wide, out)
            with torch.no_grad():
                layer.weight.copy_(weights[0])
                layer.bias.copy_(biases[0])
        else:
            layer = Stacked(weights.transpose(1, 2).contiguous(), biases.reshape(count, 1, out).contiguous())
        layers.append(layer)
        if request["acts"][i] != "linear":
            layers.append(acts[request["acts"][i]]())
    assert at == raw.shape[1], "the file has more weights than the layers"
    return torch.nn.Sequential(*layers).to(device)


def rows_of(request):
    return torch.from_numpy(np.fromfile(request["rows"], dtype="<f4").reshape(-1, request["widths"][0])).to(device)


def score(request):
    net = network(request)
    rows = rows_of(request)[: request["batch"]].contiguous()

    def errors(x):
        return torch.linalg.vector_norm(x - net(x), dim=1)

    with torch.inference_mode():
        call = compiled(errors) if request["how"] == "compiled" else errors
        if request["how"] == "graphs":
            replay = graphed(lambda: errors(rows))
            call = lambda _: replay()
        for _ in range(3):
            call(rows)
        things[request["name"]] = (call, rows)
        call(rows).cpu().numpy().astype("<f4").tofile(request["out"])
    return {}


def run(request):
    call, rows = things[request["name"]]
    settle()
    calls, batch, begin = 0, 1, time.perf_counter()
    with torch.inference_mode():
        while True:
            for _ in range(batch):
                call(rows)
            settle()
            calls += batch
            elapsed = time.perf_counter() - begin
            if elapsed >= request["seconds"]:
                return {"calls": calls, "seconds": elapsed}
            if elapsed < request["seconds"] / 64:
                batch *= 2


class Training:
    """Minibatches in turn. start goes back to the weights given and forgets what Adam remembers, so each round does the same."""

    def __init__(self, request):
        rows = rows_of(request)
        held = request.get("held", 0)
        rows, self.judged = (rows[:-held], rows[-held:]) if held else (rows, rows[: request["judged"]])
        batch = request["batch"]
        self.count = request.get("networks", 1)
        self.net = network(request)
        self.chunks = [rows[i * batch : (i + 1) * batch] for i in range(len(rows) // batch)]
        self.weights = [p.detach().clone() for p in self.net.parameters()]
        graphs = request["how"] == "graphs"
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=request["rate"], fused=True, capturable=graphs)
        call = compiled(self.loss_of) if request["how"] == "compiled" else self.loss_of

        def step(x):
            self.optimiser.zero_grad(set_to_none=True)
            call(x).backward()
            self.optimiser.step()

        self.step = step
        if graphs:
            still = torch.empty_like(self.chunks[0])
            still.copy_(self.chunks[0])
            replay = graphed(lambda: step(still))

            def replayed(x):
                still.copy_(x)
                replay()

            self.step = replayed
        self.steps(3)

    def loss_of(self, x):
        """Of many networks the sum of their means, so that none feels the others."""
        if self.count == 1:
            return torch.nn.functional.mse_loss(self.net(x), x)
        x = x.expand(self.count, *x.shape)
        return torch.nn.functional.mse_loss(self.net(x), x, reduction="sum") / x[0].numel()

    def start(self):
        with torch.no_grad():
            for p, w in zip(self.net.parameters(), self.weights):
                p.copy_(w)
        for state in self.optimiser.state.values():
            for v in state.values():
                v.zero_()

    def judge(self):
        with torch.no_grad():
            last = self.net(self.judged if self.count == 1 else self.judged.expand(self.count, *self.judged.shape))
            return float(torch.nn.functional.mse_loss(last if self.count == 1 else last[-1], self.judged))

    def steps(self, count, every=0, goal=0.0):
        self.start()
        settle()
        begin = time.perf_counter()
        for i in range(count):
            self.step(self.chunks[i % len(self.chunks)])
            if every and (i + 1) % every == 0 and self.judge() <= goal:
                break
        settle()
        elapsed = time.perf_counter() - begin
        return {"seconds": elapsed, "loss": self.judge()}

    def timed(self, seconds):
        settle()
        count, passes, begin = 0, 1, time.perf_counter()
        while True:
            for _ in range(passes):
                for x in self.chunks:
                    self.step(x)
            settle()
            count += passes * len(self.chunks)
            elapsed = time.perf_counter() - begin
            if elapsed >= seconds:
                return {"steps": count, "seconds": elapsed}
            if elapsed < seconds / 16:
                passes *= 2


def train(request):
    things.pop(request["name"], None)
    things[request["name"]] = Training(request)
    return {}


def answer(what):
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if device != "cpu" and not torch.cuda.is_available():
    answer({"error": "PyTorch finds no GPU"})
    sys.exit()
answer({"versions": {"torch": torch.__version__.split("+")[0]}})
ops = {
    "score": score,
    "run": run,
    "train": train,
    "steps": lambda q: things[q["name"]].steps(q["steps"], q.get("every", 0), q.get("goal", 0.0)),
    "timed": lambda q: things[q["name"]].timed(q["seconds"]),
}
for line in sys.stdin:
    try:
        request = json.loads(line)
        torch.set_num_threads(request.get("threads", 1))
        answer(ops[request["op"]](request))
    except Exception as error:  # a peer that fails is a row that says so
        answer({"error": f"{type(error).__name__}: {error}"})
