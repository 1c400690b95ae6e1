# A thin front over .ci/setup, CMake and tests/run. `make help` lists the targets.
BUILD ?= build/release
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help quickstart test build setup-test container-test bench faults gpu gpu4 fuzz format lint install clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

quickstart: ## set up what is missing, build, train the quickstart model (7 minutes on 2 cores)
	@.ci/setup run
	@.ci/build $(BUILD) mdslaunch mdsagent mdstrain
	@echo "== run: $(BUILD)/bin/mdslaunch docs/examples/quickstart.toml"
	@$(BUILD)/bin/mdslaunch docs/examples/quickstart.toml

test: setup-test ## set up, build everything, run every test that needs neither GPU nor hours
	@.ci/build $(BUILD)
	@tests/run --build $(BUILD)

build: ## set up what is missing and build everything
	@.ci/setup run
	@.ci/build $(BUILD)

setup-test:
	@.ci/setup test

bench: setup-test ## side-by-side measurements, written into docs/performance.md
	@.ci/build $(BUILD) mdslaunch mdsagent mdstrain mds_spawn_loop
	@.venv/bin/python tests/bench/start.py --build $(BUILD) --write docs/performance.md
	@.venv/bin/python tests/bench/containers.py --build $(BUILD) --write docs/performance.md

container-test: setup-test ## build the images for CPUs, run jobs in them under every runtime (20 minutes)
	@.ci/build $(BUILD) mdslaunch mdsagent mdstrain mdsstack
	@.venv/bin/python tests/container/images.py --build $(BUILD)
	@.venv/bin/python tests/container/megatron.py --build $(BUILD)

faults: setup-test ## the whole fault matrix: 64 slurmd, nodes that go, time limits, kills (about 5 minutes)
	@.ci/build $(BUILD) mdslaunch mdsagent mdstrain
	@.venv/bin/python tests/end_to_end/slurm_faults.py --build $(BUILD) --nodes 64
	@.venv/bin/python tests/end_to_end/leftovers.py --build $(BUILD) --rounds 1000

gpu: setup-test ## what layouts cost on this machine's GPUs, then the tests that need GPUs
	@.ci/build $(BUILD)
	-@.venv/bin/python tests/bench/gpu.py --build $(BUILD) --steps 12
	@tests/run --build $(BUILD) --gpu

gpu4: setup-test ## four GPUs of one host in one call: layouts, bubbles, checkpoints, a kill, topology (10 minutes)
	@.ci/build $(BUILD)
	@.venv/bin/python tests/bench/four_gpus.py --build $(BUILD) --record build/live-$(shell hostname)

fuzz: setup-test ## broken job, data and topology files with fresh seeds, FUZZ_SECONDS (600) each; needs clang
	@.ci/build $(BUILD) mdslaunch mdsagent mdstrain
	@.venv/bin/python tests/end_to_end/bad_input.py --build $(BUILD) --fuzz-seconds $(FUZZ_SECONDS)
	@.ci/fuzz $(FUZZ_SECONDS)

format: ## clang-format over all sources
	@git ls-files -co --exclude-standard '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -r clang-format -i

lint: ## style test, clang-tidy, shellcheck
	@.ci/lint $(BUILD)

install: build ## install programs, man pages, completions and examples under PREFIX (/usr/local)
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove what was built (the virtual environment stays)
	@rm -rf build
