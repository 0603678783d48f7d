# Everything that a person types. Each target says what it does in one line; `make` alone lists them.
PYTHON ?= python3
CLUSTER ?= local
# Megabytes of one allocation and of all; seconds of one input. A picture of the largest size that is taken has 128 MB in 16 bits of four channels.
FUZZ_BOUNDS = -malloc_limit_mb=384 -rss_limit_mb=1024 -timeout=30
# A line of statistics at the end instead of one for each input that is new: eight thousand in twenty seconds.
FUZZ_SAYS = -verbosity=0 -print_funcs=0 -print_final_stats=1

.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

up: ## build, start a cluster, install, draw a picture (CLUSTER=current: the one that kubectl points at)
	@$(PYTHON) e2e/up.py --cluster $(CLUSTER) $(if $(OPERATOR_IMAGE),--operator-image $(OPERATOR_IMAGE)) $(if $(INFERENCE_IMAGE),--inference-image $(INFERENCE_IMAGE))

stores: ## start a registry and an S3-compatible server in the local cluster; say how to push there
	@$(PYTHON) e2e/stores up && $(PYTHON) e2e/stores login

down: ## stop the local cluster and remove what it made; built programs stay in the cache
	@$(PYTHON) e2e/cluster/cluster.py down

test: ## prove all of it: lints, unit tests, parity, and the promises on the local cluster, which it takes down
	@$(PYTHON) e2e/test.py

test-quick: ## what needs no cluster
	@$(PYTHON) e2e/test.py --quick

test-gpu: deps ## what only a machine with a GPU can show; LD_LIBRARY_PATH: the lib folder of its Python torch
	@cargo test -p easel-inference --features torch --test cuda -- --ignored --test-threads 1

deps: ## install what a build needs, and write cargo's settings
	@$(PYTHON) -c 'import sys; sys.path.insert(0, "e2e"); from easel import toolchain; toolchain.ensure()'

generate: deps ## write the custom resource definitions and docs/api-refusals.md again
	@cargo run --quiet -p easel-crds --bin crdgen charts/easel-crds/templates docs

images: deps ## build the binaries and the two OCI archives
	@$(PYTHON) -c 'import sys; sys.path.insert(0, "e2e"); from easel import build; build.binaries(); build.images(load=False)'

digest: ## print the digest of the default checkpoint
	@$(PYTHON) -c 'import sys; sys.path.insert(0, "e2e"); from easel import build; print(build.digest())'

soak: ## draw for SECONDS (default 600) on the running cluster while pods and leaders are killed, seeded by SEED
	@$(PYTHON) e2e/soak.py --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

soak-engine: deps ## draw REQUESTS (default 2000) mixed requests on pods without a cluster that are ended, killed and told to hold other models
	@$(PYTHON) e2e/soak_engine.py --requests $(or $(REQUESTS),2000) --seed $(or $(SEED),1)

bench-load: ## pull, verify and load 1 GB beside peers (ROUNDS=5); the peers' Python environment has 5 GB
	@$(PYTHON) e2e/bench/load.py --rounds $(or $(ROUNDS),5)

bench-engine: ## seconds per picture beside diffusers, same weights and threads (ROUNDS=5; MORE="--sizes 64 --dtypes bf16"); half an hour
	@$(PYTHON) e2e/bench/engine.py --rounds $(or $(ROUNDS),5) $(MORE)

bench-serve: ## pictures in time under Poisson arrivals, beside diffusers behind Ray Serve and LitServe (MORE="--seconds 20"); a quarter of an hour
	@$(PYTHON) e2e/bench/serve.py $(MORE)

bench-pod: ## steps after a cancel, steps beside a load, memory of what is resident, on a real pod (ROUNDS=5; MORE="--parts load"); five minutes
	@$(PYTHON) e2e/bench/pod.py --rounds $(or $(ROUNDS),5) $(MORE)

bench-plan: deps ## how long one plan of 100 models on 100 replicas, and of 1,000 on 1,000, takes
	@cargo bench --quiet -p easel-planner --bench plan

bench-elastic: ## GPU-hours and dollars of Easel's autoscaler beside others over a simulated day, with TRACE and CURVE (CSV); five seeds
	@cargo run --quiet --release -p easel-planner --example elastic -- $(or $(TRACE),$(error say TRACE=requests.csv)) $(or $(CURVE),$(error say CURVE=generative_qps.csv))

bench-simulate: ## share in time of every policy on the simulated reference fleet, with a TRACE of requests (CSV); five seeds (MORE="--loads 0.6")
	@$(PYTHON) e2e/bench/simulate.py --trace $(or $(TRACE),$(error say TRACE=requests.csv)) $(MORE)

fuzz: deps ## feed the readers of headers, pictures and requests with broken bytes, each for SECONDS=60 (cargo install cargo-fuzz)
	@for target in safetensors_header picture edit_request; do mkdir -p fuzz/corpus/$$target; RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz --sanitizer none \
		--target-dir fuzz/target $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(or $(SECONDS),60) $(FUZZ_BOUNDS) $(FUZZ_SAYS) || exit 1; done

.PHONY: help up stores down test test-quick test-gpu deps generate images digest soak soak-engine bench-load bench-engine bench-pod bench-serve bench-plan bench-elastic bench-simulate fuzz
