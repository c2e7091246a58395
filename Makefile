# Everything a developer does with kiln. `make help` lists it. Only Go and make are needed, but for the
# page, whose built form is committed: web and test-page need node, and test-page installs a browser.

GO    ?= go
TOOL   = GOWORK=off $(GO) tool -modfile=tools/go.mod
ALL    = ./... ./api/...
DATA  ?= data
# Long tests of answers, of memory and of damaged input: the race detector finds nothing there that it does not find elsewhere.
LONG   = TestTheMachineIsItsModel|TestSimulation|TestRollups|TestDeletedSeriesAreInNoAnswer|TestEveryFile|TestFiveHundredPushes|TestHostile|TestGunzip|TestSelect|TestMessagesAreBounded|TestCorpus

.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## Build kiln and run the whole system in one process on ./data
	./bin/kiln server --data-dir $(DATA)

build: ## Build bin/kiln
	$(GO) build -trimpath -o bin/kiln ./cmd/kiln

test: ## Run every Go test
	$(GO) test $(ALL)

test-long: ## Run the metastore's model test, simulation and group under faults for longer
	$(GO) test ./metastore -run TestTheMachineIsItsModel -rapid.checks 2000 -rapid.steps 50 -timeout 30m
	KILN_SIMULATION_SEEDS=20000 $(GO) test ./metastore -run TestSimulation -timeout 60m
	KILN_GROUP_SEEDS=200 $(GO) test ./metastore -run TestAGroupIsLinearizable -timeout 60m

race: ## Run the tests of packages with goroutines under the race detector
	$(GO) test -race -short -skip '$(LONG)' ./node $(shell cat .ci/race-packages)
	$(GO) test -race -run 'FindsDamageLate|Concurrent' ./block

bench: ## Measure the budgets of docs/benchmarks.md, as ratios
	$(GO) test -run '^$$' -bench . -benchtime 1s ./benchmarks/block ./benchmarks/ingest
	$(GO) test -run '^$$' -bench . -benchtime 1x ./benchmarks/process
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./benchmarks/metastore

lint: ## Check formatting, vet and staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these"; exit 1; }
	$(GO) vet $(ALL)
	$(TOOL) staticcheck ./...
	$(TOOL) buf lint

generate: ## Regenerate the code in api/ from its protos
	$(TOOL) buf generate

generate-check: generate ## Fail if generated code is not what the protos say
	git diff --exit-code -- api
	@test -z "$$(git status --porcelain -- api)" || { git status --short -- api; exit 1; }

web: ## Build the page into web/dist
	cd web && npm ci && npm run build

test-page: build ## Drive the page in headless Chromium against a running kiln
	.ci/test-page

clean: ## Remove what builds and runs leave behind
	rm -rf bin data

.PHONY: help run build test test-long race bench lint generate generate-check web test-page clean
