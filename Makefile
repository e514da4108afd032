# make help says what there is. Needed: Go 1.26 or newer, a C compiler, make. Python 3 only for the ONNX Runtime check.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build demo test lint gpu ptx test-gpu-emulated test-gpu bench bench-peers smoke recording arm64 test-kafka test-faults soak soak-training soak-models clean FORCE

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
export LAPWING_DATA ?= $(abspath ../shared/data)
export LAPWING_PYTHON ?= $(abspath build/py/bin/python)
GOTESTSUM := $(GO) run gotest.tools/gotestsum@v1.13.0
E2E := ^Test(Demo|Docs|Recording|RealInput|GeneratedInput|LifeOfAModel|ExactlyOnce|TrainMemory|Quality|FunctionsExhaustive|RunOnce|SimulationOfAMillion)
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

build: ## bin/lapwing
	@mkdir -p bin
	@$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/lapwing ./cmd/lapwing

# The gpu build needs cuda.h to compile and nothing of CUDA to link or start (kernels/cuda/driver). gorgonia.org/cu compiles with
# the headers of CUDA 11.8 and 12, not with those of 13; CUDA_INCLUDE=folder takes others than PyPI's.
CUDA_INCLUDE ?= $(abspath build/cuda/nvidia/cuda_runtime/include)
GPU := CGO_CFLAGS="-O2 -g -I$(CUDA_INCLUDE)"
gpu: build/cuda/.headers ## bin/lapwing-gpu: build plus CUDA, for machines with and without a GPU
	@mkdir -p bin
	@$(GPU) $(GO) build -tags gpu -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/lapwing-gpu ./cmd/lapwing

demo: ## everything on this machine, in under a minute: broker, training, hot swap, live scores, alerts
	@[ -x bin/lapwing ] || echo "building bin/lapwing: the first time takes some minutes (librdkafka is linked in, nothing else is needed)"
	@$(MAKE) -s build
	@./bin/lapwing demo

lint: build/py/.ready ## gofmt, vet, staticcheck, hadolint, shellcheck, Kubernetes' schemas
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt wants to change:"; echo "$$out"; exit 1; }
	@$(GO) vet ./...
	@$(GO) vet -tags e2e ./cmd/lapwing ./stream ./kernels/cpu ./docker/cloud ./bench/kafka ./bench/faults
	@$(STATICCHECK) ./...
	@if [ -x build/py/bin/hadolint ]; then build/py/bin/hadolint docker/Dockerfile; fi
	@if [ -x build/py/bin/shellcheck ]; then build/py/bin/shellcheck docker/cloud/run-once kernels/cuda/emulator/check bench/kafka/with-kafka .ci/run; fi
	@if [ -x build/py/bin/kubernetes-validate ]; then build/py/bin/kubernetes-validate -k 1.37.0 --strict --quiet docker/cloud/job.yaml docker/kubernetes/serve.yaml; fi

# The virtual environment holds what compares our models with ONNX Runtime, the quality bench's peers but for PyTorch's, and the linters of docker/. Without Python these checks
# are skipped, and said so.
build/py/.ready: model/onnxcheck/requirements.txt docker/requirements.txt bench/quality/requirements.txt
	@mkdir -p build; rm -rf build/py
	@if command -v python3 >/dev/null && python3 -m venv build/py && build/py/bin/pip -q --disable-pip-version-check install -r model/onnxcheck/requirements.txt -r docker/requirements.txt -r bench/quality/requirements.txt; \
	then touch $@; else echo "SKIPPED-ONNX: no Python 3 with venv and packages here; ONNX Runtime is not compared, the Dockerfile not linted" >&2; rm -rf build/py; fi

# Compilers and headers of CUDA, from PyPI, into one folder. The stamps are compared and not dated: a fresh checkout fetches nothing anew.
pip-cuda = python3 -m venv build/cuda/venv && build/cuda/venv/bin/pip -q --disable-pip-version-check install --no-deps --upgrade --target build/cuda
build/cuda/.headers: FORCE
	@mkdir -p build/cuda; grep nvidia-cuda-runtime kernels/cuda/requirements.txt >build/.headers; cmp -s build/.headers $@ || [ "$(origin CUDA_INCLUDE)" != file ] || \
	{ $(pip-cuda) -r build/.headers && cp build/.headers $@; } || \
	{ echo "cuda.h is missing, and could not be fetched from PyPI (python3 with venv, and a network, would do): install the headers of CUDA 11.8 or 12 and say make gpu CUDA_INCLUDE=<folder of cuda.h>" >&2; exit 1; }
	@[ -e "$(CUDA_INCLUDE)/cuda.h" ] || { echo "no cuda.h in $(CUDA_INCLUDE): install the headers of CUDA 11.8 or 12 and say CUDA_INCLUDE=<folder of cuda.h>, or leave it out to fetch them from PyPI" >&2; exit 1; }
build/cuda/.ready: FORCE
	@mkdir -p build/cuda; cmp -s kernels/cuda/requirements.txt $@ || { $(pip-cuda) -r kernels/cuda/requirements.txt && cp kernels/cuda/requirements.txt $@ && grep nvidia-cuda-runtime $@ >build/cuda/.headers; } || \
	{ echo "the compilers of CUDA could not be fetched from PyPI: python3 with venv, and a network, are needed" >&2; exit 1; }

ptx: build/cuda/.ready ## kernels/cuda/*.ptx and resources.txt from the kernels' sources; refuses what spills or rounds differently elsewhere
	@$(GO) run ./kernels/cuda/ptx

test-gpu-emulated: build/cuda/.ready ## kernels and gpu binary without a GPU: emulated driver, three sanitizers, seeded faults
	@$(GPU) CUDA_INCLUDE="$(CUDA_INCLUDE)" kernels/cuda/emulator/check

# Whether a GPU can be used is asked of the program: containers may have a driver and no nvidia-smi.
test-gpu: gpu ## on this machine's GPU: kernels' tests, compute-sanitizer where it is installed, lapwing bench gpu (build/gpu.html, build/gpu.json)
	@found=$$(bin/lapwing-gpu version | sed -n 's/^ *gpu  *//p'); echo "$$found"; case $$found in GPU*) ;; *) echo "no GPU here: make test-gpu-emulated runs the kernels on the CPU" >&2; exit 1 ;; esac
	@mkdir -p build; $(GPU) $(GO) test -tags gpu -count=1 -timeout 20m ./kernels/cuda ./kernels/cuda/driver && $(GPU) $(GO) test -tags gpu -count=1 -timeout 20m -run GPU ./cmd/lapwing
	@$(GPU) $(GO) test -tags gpu -c -o build/cuda.test ./kernels/cuda
	@if command -v compute-sanitizer >/dev/null; then cd kernels/cuda; for tool in memcheck racecheck synccheck initcheck; do \
	echo "compute-sanitizer --tool $$tool"; compute-sanitizer --tool $$tool --error-exitcode 1 ../../build/cuda.test -test.run 'Compliance|SameBits|Resident'; done; \
	else echo "no compute-sanitizer here: the kernels' tests were run without it"; fi
	@./bin/lapwing-gpu bench gpu --json build/gpu.json --html build/gpu.html

# Two passes: the race detector over all packages; then, without it and alone on the machine, the tests that run the program as a user does.
test: build lint ## lint, unit tests with the race detector, fuzz seeds, end-to-end, ONNX Runtime, real sets, demo
	@mkdir -p build; ok=0; \
	$(GOTESTSUM) --format pkgname --hide-summary=skipped --jsonfile build/unit.json -- -race -timeout 15m ./... || ok=1; \
	$(GOTESTSUM) --format testname --hide-summary=skipped --jsonfile build/e2e.json -- -tags e2e -timeout 15m -run '$(E2E)' ./cmd/lapwing ./kernels/cpu ./docker/cloud || ok=1; \
	skips=$$(cat build/unit.json build/e2e.json | grep '"Action":"skip"' | grep -o '"Test":"[^"]*"' | cut -d'"' -f4 | sort -u | paste -sd' ' || true); \
	n=$$(wc -w <<<"$$skips"); \
	if [ -n "$${CI:-}" ] && [ "$$n" != 0 ]; then echo "in CI a skip is a failure" >&2; ok=1; fi; \
	if [ "$$n" = 0 ]; then echo "no test was skipped"; else echo "$$n tests skipped, for want of LAPWING_DATA or Python: $$skips"; fi; \
	exit $$ok

bench: build ## Lapwing next to its peers and this machine's limit, under 15 minutes: table, build/bench.html, build/bench.json
	@mkdir -p build; ./bin/lapwing bench --rounds 5 --records 200000 --latency-for 5s --sample 15ms --json build/bench.json --html build/bench.html

bench-peers: build ## what make bench measures next to: Python packages, Apache Kafka, Kafka Streams (needs python3, a JDK 17, mvn)
	@./bin/lapwing bench --install-peers

# Only whether results agree with ONNX Runtime's and a Python scorer's. A peer that is missing is an error.
smoke: build ## results equal across engines and peers; no timing
	@./bin/lapwing bench --install-peers=python
	@./bin/lapwing bench --smoke

recording: build ## docs/demo.svg, drawn from the demo's own frames
	@LAPWING_TEST_RECORD=$(abspath docs/demo.svg) $(GO) test -tags e2e -count=1 -run TestRecording ./cmd/lapwing

# The emulator runs the tests of the NEON code; the suite's other levels belong to other processors.
NEON := ^Test(Compliance|Functions|Activation|Map)/^(neon|tanh|sigmoid|exp|log|elu|gelu|relu|linear|leaky.*)$$
arm64: ## cross-compile for linux arm64 with Debian's gcc-aarch64-linux-gnu, and run the NEON kernels' tests under qemu-user
	@mkdir -p bin build
	@CGO_ENABLED=1 GOOS=linux GOARCH=arm64 CC=aarch64-linux-gnu-gcc $(GO) build -o bin/lapwing-arm64 ./cmd/lapwing
	@CGO_ENABLED=1 GOOS=linux GOARCH=arm64 CC=aarch64-linux-gnu-gcc $(GO) test -c -o build/cpu-arm64.test ./kernels/cpu
	@if command -v qemu-aarch64 >/dev/null; then cd kernels/cpu && qemu-aarch64 -L /usr/aarch64-linux-gnu ../../build/cpu-arm64.test -test.timeout 10m -test.run '$(NEON)'; \
	elif [ -n "$${CI:-}" ]; then echo "qemu-aarch64 is missing (Debian: qemu-user): in CI the NEON kernels must be tested" >&2; exit 1; \
	else echo "no qemu-aarch64 here (Debian: qemu-user): the NEON kernels were compiled, not tested" >&2; fi

test-kafka: build ## real Apache Kafka from Maven artifacts: one broker, end to end (needs java, mvn)
	@bench/kafka/with-kafka $(GO) test -tags e2e -count=1 -timeout 10m -p 1 ./stream ./registry
	@bench/kafka/with-kafka $(GO) test -tags e2e -count=1 -timeout 20m -run RealKafka ./cmd/lapwing
	@$(GO) test -tags e2e -count=1 -timeout 10m ./bench/kafka
	@$(GO) test -tags e2e -count=1 -timeout 10m -run SecureKafka ./cmd/lapwing

test-faults: build ## scorers and trainers under faults, on three brokers of a real Apache Kafka, and what became of each record: a table, in 2 minutes (needs java, mvn, kcat)
	@$(GO) test -tags e2e -count=1 -timeout 12m -v ./bench/faults

# SEED=N begins with another order of faults; a round's seed stands in its first line.
SOAK ?= 1h
SEED ?= 9
soak: build ## every kind of fault for an hour, also those marked open; SOAK=10m for less, SEED=9 as the first seed
	@$(GO) test -tags e2e -count=1 -timeout 24h -v -run TestFaults ./bench/faults -open -for $(SOAK) -seed $(SEED)

soak-training: build ## train on 50 million records of real Kafka within 1 GiB: about 20 GB of disk and an hour (needs java, mvn)
	@bench/kafka/with-kafka $(GO) test -tags e2e -count=1 -v -timeout 4h -run SoakTraining ./cmd/lapwing

soak-models: ## 200 versions, published, moved and deleted on a real Kafka whose cleaner is at work: some minutes (needs java, mvn)
	@bench/kafka/with-kafka $(GO) test -tags e2e -count=1 -v -timeout 30m -run TheTopicIsCompacted ./registry -versions 200

clean: ## remove bin and build
	@rm -rf bin build
