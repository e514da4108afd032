// Trains small networks with the kernels of train.cu on this CPU, in every way a launch can be cut, and holds them
// against plain loops in double precision: losses and weights near those, and all cuts to the same bytes. Built by make
// test-gpu-emulated as it is and under the thread sanitizer, which alone sees some missing barriers. Arguments: rows of a
// minibatch, steps.
#include "../train.cu"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>
using std::vector;

static uint32_t seed = 1;
static float uniform()
{
	seed = seed * 1664525u + 1013904223u;
	return (float)(seed >> 8) / 8388608.f - 1.f;
}

// exact is a heap allocation of just so many entries: whatever lies beyond is the sanitizer's.
template <class T> struct exact {
	std::unique_ptr<T[]> p;
	size_t n;
	explicit exact(size_t n) : p(new T[n]()), n(n) {}
	explicit exact(const vector<T> &v) : exact(v.size()) { std::copy(v.begin(), v.end(), p.get()); }
	T *get() const { return p.get(); }
};

struct network {
	vector<int> widths, acts; // acts of widths 1, 2, …
	bool huber, sgd;
};

static int up(int n, int to) { return (n + to - 1) / to * to; }

// The same arithmetic in double precision, one row after another.
struct reference {
	const network &n;
	vector<double> w, m, v;
	int steps = 0;

	double function(int act, double x, double *slope)
	{
		double y = x;
		*slope = 1;
		switch (act) {
		case ACT_RELU: y = x > 0 ? x : 0, *slope = x > 0; break;
		case ACT_TANH: y = tanh(x), *slope = 1 - y * y; break;
		case ACT_SIGMOID: y = 1 / (1 + exp(-x)), *slope = y * (1 - y); break;
		case ACT_LEAKY_RELU: y = x > 0 ? x : .01 * x, *slope = x > 0 ? 1 : .01; break;
		case ACT_ELU: y = x > 0 ? x : exp(x) - 1, *slope = x > 0 ? 1 : y + 1; break;
		case ACT_GELU: {
			double u = .7978845608028654 * (x + .044715 * x * x * x), t = tanh(u);
			y = .5 * x * (1 + t);
			*slope = .5 * (1 + t) + .5 * x * (1 - t * t) * .7978845608028654 * (1 + 3 * .044715 * x * x);
		}
		}
		return y;
	}

	double step(const vector<float> &rows, int pitch, const vector<int> &order, const train_step &s)
	{
		int layers = (int)n.widths.size() - 1, width = n.widths[0];
		vector<double> g(w.size());
		double loss = 0;
		for (int r = 0; r < s.n; r++) {
			const float *row = &rows[(size_t)order[s.first + r] * pitch];
			vector<vector<double>> y(layers + 1), slope(layers + 1);
			y[0].assign(row, row + width);
			size_t at = 0;
			for (int l = 0; l < layers; l++) {
				int in = n.widths[l], out = n.widths[l + 1];
				y[l + 1].resize(out), slope[l + 1].resize(out);
				for (int o = 0; o < out; o++) {
					double sum = w[at + (size_t)out * in + o];
					for (int i = 0; i < in; i++)
						sum += w[at + (size_t)o * in + i] * y[l][i];
					y[l + 1][o] = function(n.acts[l], sum, &slope[l + 1][o]);
				}
				at += (size_t)out * in + out;
			}
			vector<double> d(width);
			for (int i = 0; i < width; i++) {
				double e = y[layers][i] - row[i], q = n.huber ? std::max(-.5, std::min(.5, e)) : e;
				loss += n.huber ? q * (e - q / 2) : e * e;
				d[i] = (n.huber ? q : 2 * q) / ((double)s.n * width);
			}
			for (int l = layers - 1; l >= 0; l--) {
				int in = n.widths[l], out = n.widths[l + 1];
				at -= (size_t)out * in + out;
				vector<double> dx(in);
				for (int o = 0; o < out; o++) {
					double e = d[o] * slope[l + 1][o];
					g[at + (size_t)out * in + o] += e;
					for (int i = 0; i < in; i++) {
						g[at + (size_t)o * in + i] += e * y[l][i];
						dx[i] += e * w[at + (size_t)o * in + i];
					}
				}
				d = dx;
			}
		}
		steps++;
		for (size_t i = 0; i < w.size(); i++) {
			if (n.sgd) {
				w[i] -= s.rate * g[i];
				continue;
			}
			m[i] = .9 * m[i] + .1 * g[i];
			v[i] = .999 * v[i] + .001 * g[i] * g[i];
			w[i] -= s.rate * (m[i] / (1 - pow(.9, steps))) / (sqrt(v[i] / (1 - pow(.999, steps))) + 1e-8);
		}
		return loss / ((double)s.n * width);
	}
};

// How a launch is cut.
struct cut {
	int blocks, threads, lot, memory; // memory: 0 all shared, 1 values, 2 none
	bool each, alias;                 // a launch for every half step; gradients where their values stand
};

struct outcome {
	vector<float> w;
	vector<double> losses;
	vector<unsigned> state;
};

static outcome run(const network &n, const cut &c, const vector<float> &rows, int pitch, const vector<int> &order, const vector<train_step> &steps, const vector<float> &start, int batch, int phases)
{
	int layers = (int)n.widths.size() - 1, width = n.widths[0];
	vector<train_op> ops;
	vector<int> value{0}, gradient{-1}, slope{0}, places;
	int units = width, words = 0, parameter = 0;
	for (int l = 0; l < layers; l++) {
		int out = n.widths[l + 1];
		value.push_back(units), units += out;
		slope.push_back(units), units += n.acts[l] == ACT_GELU ? out : 0;
		gradient.push_back(c.alias ? value.back() : units), units += c.alias ? 0 : out;
	}
	vector<train_op> back;
	for (int l = 0; l < layers; l++) {
		int in = n.widths[l], out = n.widths[l + 1];
		train_op o = {};
		o.kind = TRAIN_PRODUCT, o.act = n.acts[l], o.in = in, o.out = out, o.x = value[l], o.y = value[l + 1], o.slope = slope[l + 1];
		o.columns = words, words += up(out, 4) * (in + 1);
		o.rows = words, words += l ? up(in, 4) * out : 0;
		o.w = parameter, o.b = parameter + in * out, parameter = o.b + out;
		for (int i = 0; i < out * in; i++) {
			places.push_back(o.columns + up(out, 4) * (1 + i % in) + i / in);
			places.push_back(l ? o.rows + up(in, 4) * (i / in) + i % in : -1);
		}
		for (int i = 0; i < out; i++)
			places.push_back(o.columns + i), places.push_back(-1);
		ops.push_back(o);
		o.dy = gradient[l + 1], o.dx = l ? gradient[l] : -1, o.next_act = -1;
		o.through = !c.alias;
		if (l && c.alias)
			o.next_act = n.acts[l - 1], o.next_y = value[l], o.next_slope = slope[l];
		back.push_back(o);
	}
	ops.insert(ops.end(), back.rbegin(), back.rend());
	int last_act = c.alias ? n.acts.back() : -1;

	exact<float> layout(words), parameters(start), m1(start.size()), m2(start.size()), prepared(rows), gradients(start.size());
	for (size_t i = 0; i < start.size(); i++)
		for (int k = 0; k < 2; k++)
			if (places[2 * i + k] >= 0)
				layout.p[places[2 * i + k]] = start[i];
	int groups = (batch + GROUP - 1) / GROUP, leaves = (groups + LEAF - 1) / LEAF, group_words = up(units * STRIDE - 8, 32) + 8;
	exact<float> slots((size_t)leaves * start.size()), scratch(c.memory == 2 ? (size_t)c.blocks * c.lot * group_words : 1);
	for (size_t i = 0; i < slots.n; i++)
		slots.p[i] = NAN;
	exact<double> losses(steps.size()), group_losses(groups * ((width + 7) / 8));
	exact<unsigned> state(2);
	exact<int> order_(order), places_(places);
	exact<unsigned> barrier(1);
	exact<train_op> ops_(ops);
	exact<train_step> steps_(steps);
	exact<train_model> model(1);
	train_model &m = model.p[0];
	m.ops = ops_.get(), m.rows = prepared.get(), m.order = order_.get(), m.steps = steps_.get(), m.losses = losses.get(), m.state = state.get();
	m.barrier = barrier.get(), m.parameters = parameters.get(), m.moment1 = m1.get(), m.moment2 = m2.get(), m.layout = layout.get();
	m.places = places_.get(), m.slots = slots.get(), m.group_losses = group_losses.get(), m.gradient = gradients.get(), m.scratch = scratch.get();
	m.forward = layers, m.backward = layers, m.pitch = pitch, m.loaded = width, m.group_words = group_words, m.lot = c.lot;
	m.parameter_count = (int)start.size(), m.slot = (int)start.size(), m.layout_words = words, m.width = width;
	m.prediction = value[layers], m.target = 0, m.gradient_unit = gradient[layers];
	m.last_act = last_act, m.last_y = value[layers], m.last_slope = slope[layers], m.huber = n.huber, m.sgd = n.sgd, m.delta = .5f;

	const train_model *models = model.get();
	int blocks = c.blocks;
	const char *names[] = {"train_shared", "train_weights", "train_wide"};
	size_t shared = 4 * (HEADER + WORK * ops.size()) + (c.memory == 0 ? 4 * (size_t)words : 0) + (c.memory < 2 ? 4 * (size_t)c.lot * group_words : 0);
	auto launch = [&](int from, int count, int phases, bool cooperative) {
		*barrier.get() = 0;
		void *arguments[] = {(void *)&models, &blocks, &from, &count, &phases};
		for (auto &k : cpu::kernels())
			if (!strcmp(k.name, names[c.memory]))
				cpu::run({&k, {(unsigned)blocks}, {(unsigned)c.threads}, shared, cooperative, arguments});
	};
	int count = (int)steps.size();
	if (!c.each)
		launch(0, count, phases, true);
	for (int i = 0; c.each && i < count; i++) {
		launch(i, 1, phases & (DO_FORWARD | DO_BACKWARD), false);
		launch(i, 1, phases & ~(DO_FORWARD | DO_BACKWARD), false);
	}
	const float *w = phases & DO_GRADIENT ? gradients.get() : parameters.get();
	return {vector<float>(w, w + start.size()), vector<double>(losses.get(), losses.get() + count), vector<unsigned>(state.get(), state.get() + 2)};
}

static int failures = 0;
static void fail(const char *what, const network &n, const cut &c, double a, double b)
{
	failures++;
	printf("train_check: %s: %.9g, want %.9g: widths", what, a, b);
	for (size_t i = 0; i < n.widths.size(); i++)
		printf(" %d", n.widths[i]);
	printf(" act %d huber %d sgd %d; %d blocks of %d, lot %d, memory %d, each %d, alias %d\n", n.acts[0], n.huber, n.sgd, c.blocks, c.threads, c.lot, c.memory, c.each, c.alias);
}

int main(int argc, char **argv)
{
	int batch = argc > 1 ? atoi(argv[1]) : 300, count = argc > 2 ? atoi(argv[2]) : 6;
	vector<network> networks = {
		{{30, 14, 7, 14, 30}, {ACT_TANH, ACT_LINEAR, ACT_TANH, ACT_LINEAR}, false, false},
		{{5, 33, 5}, {ACT_GELU, ACT_GELU}, true, false},
		{{9, 3, 9}, {ACT_SIGMOID, ACT_ELU}, false, true},
		{{1, 1, 1}, {ACT_RELU, ACT_LEAKY_RELU}, true, true},
	};
	vector<cut> cuts = {
		{1, 256, 8, 0, false, true}, {1, 64, 2, 0, false, true}, {3, 96, 4, 0, false, false}, {2, 128, 8, 1, false, true},
		{2, 64, 4, 2, false, false}, {2, 64, 2, 1, false, false}, {3, 64, 4, 0, true, true}, {1, 32, 4, 2, true, false},
	};
	const int phases = DO_FORWARD | DO_BACKWARD | DO_LOSS | DO_STEP;
	for (auto &n : networks) {
		int width = n.widths[0], pitch = up(width, 8), rows = 2 * batch + 7;
		vector<float> data((size_t)rows * pitch), start;
		for (float &v : data)
			v = uniform();
		for (size_t l = 0; l + 1 < n.widths.size(); l++)
			for (int i = 0; i < (n.widths[l] + 1) * n.widths[l + 1]; i++)
				start.push_back(uniform() * .4f);
		vector<int> order;
		vector<train_step> steps;
		for (int i = 0; i < count; i++) {
			int size = i % 3 == 1 ? 1 + batch / 3 : batch; // an epoch's last batch is smaller
			steps.push_back({(int)order.size(), size, (float)(1 / ((double)size * width)), .01f * (1 + i % 2), (float)(1 / (1 - pow(.9, i + 1))), (float)(1 / (1 - pow(.999, i + 1)))});
			for (int k = 0; k < size; k++)
				order.push_back((int)((uniform() + 1) / 2 * (rows - 1)));
		}
		reference r{n, vector<double>(start.begin(), start.end()), vector<double>(start.size()), vector<double>(start.size())};
		vector<double> want;
		for (auto &s : steps)
			want.push_back(r.step(data, pitch, order, s));
		outcome first;
		for (auto &c : cuts) {
			outcome o = run(n, c, data, pitch, order, steps, start, batch, phases);
			if (&c == &cuts[0]) {
				for (int i = 0; i < count; i++)
					if (!(fabs(o.losses[i] - want[i]) < 2e-5 * want[i]))
						fail("loss", n, c, o.losses[i], want[i]);
				for (size_t i = 0; i < start.size(); i++)
					// Adam divides a gradient by its own size: where that is near 0 its rounding counts.
					if (!(fabs(o.w[i] - r.w[i]) < 2e-4)) {
						fail("weight", n, c, o.w[i], r.w[i]);
						break;
					}
				first = o;
			} else if (memcmp(o.w.data(), first.w.data(), 4 * o.w.size()) || memcmp(o.losses.data(), first.losses.data(), 8 * o.losses.size()))
				fail("bytes of another cut", n, c, o.w[0], first.w[0]);
			if ((int)o.state[0] != count || o.state[1] != 0)
				fail("state", n, c, o.state[0], count);
			// A loss that is not finite ends the launch before its step.
			vector<float> bad = data;
			bad[(size_t)order[steps[1].first] * pitch] = INFINITY;
			vector<train_step> once(steps.begin(), steps.begin() + 1), all(steps);
			outcome a = run(n, c, bad, pitch, order, all, start, batch, phases);
			bool early = std::find(order.begin(), order.begin() + steps[0].n, order[steps[1].first]) != order.begin() + steps[0].n;
			int done = early ? 0 : 1;
			if ((int)a.state[0] != done || (int)a.state[1] != done + 1 || std::isfinite(a.losses[done]))
				fail("state after an infinite loss", n, c, a.state[0], done);
			vector<float> same = early ? start : run(n, c, data, pitch, order, once, start, batch, phases).w;
			if (memcmp(a.w.data(), same.data(), 4 * same.size()))
				fail("weights after an infinite loss", n, c, a.w[0], same[0]);
		}
	}
	printf("train_check: %zu networks, %zu cuts, %d rows, %d steps: %s\n", networks.size(), cuts.size(), batch, count, failures ? "FAILED" : "ok");
	return failures != 0;
}
