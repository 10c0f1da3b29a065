# entrepot: the few commands of the project.
#
#   make run     a mirror on this machine, with its store in ./data
#   make demo    a whole system on this machine: origin, three regions, router
#   make test    everything, against real clients and real servers
#   make chaos   the same while everything breaks, for ten minutes
#   make lint    formatting and static analysis
#   make image   the container image for all platforms, in build/image
#   make config-docs the configuration reference, from the comments in the code
#   make chart-docs  the chart's README and schema, from its values
#
# Programs that tests need are built from pinned Go modules into .tools, once.

SHELL      := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

GO         ?= go
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS    := -s -w -X main.version=$(VERSION)
GOLANGCI   := v2.15.0
LINTER     := .tools/bin/golangci-lint-$(GOLANGCI)
GOVULNCHECK := v1.9.0
FUZZTIME   ?= 20s
# Of make chaos: one run each, and how long its faults go on.
SEEDS      ?= 11,12
MINUTES    ?= 3
# Packages that need no server of their own.
UNIT        = $(shell $(GO) list ./... | grep -v '/e2e')

# Reproducible: its time is the commit's.
EPOCH      ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: run demo build image containerfile config-docs chart-docs test unit chart e2e lint vuln cover bench pgo fuzz tools clean

run: build
	bin/entrepot serve

# Needs nothing but Go; what it stores is removed at its end.
demo:
	$(GO) run ./e2e/demo

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/entrepot ./cmd/entrepot

# An OCI layout for amd64 and arm64, with no container engine; prints its digest.
image:
	rm -rf build/image
	SOURCE_DATE_EPOCH=$(EPOCH) $(GO) run ./deploy/image -version '$(VERSION)' -o build/image

# Compiles by the Containerfile, with no network, and compares the image with
# what make image gives; two minutes. Without compiling, make test does.
containerfile:
	ENTREPOT_TEST_COMPILE_INSIDE=1 $(GO) test ./e2e -run '^TestContainerfile' -count 1 -v

# The tables of docs/CONFIGURATION.md.
config-docs:
	$(GO) test ./cmd/entrepot -run '^TestTheReferenceSaysWhatTheCodeSays$$' -count 1 -update

# README.md and values.schema.json of the Helm chart.
chart-docs:
	$(GO) run ./deploy/helm/docs

test: unit chart e2e

unit: tools
	$(GO) test -race -shuffle=on -p 2 -timeout 20m $(UNIT)

# The Helm chart and the compose file, in a module of their own, whose list of
# dependencies follows this one.
chart: tools
	cd deploy/charttest && GOFLAGS="$${GOFLAGS:-} -mod=mod" $(GO) test .

# After the others and one package at a time: these start servers, and two
# cores are soon busy.
e2e: tools
	$(GO) test -p 1 -timeout 40m ./e2e/...

# Everything breaks, for some minutes and each seed: what must not happen then is
# counted, in docs/RELIABILITY.md.
chaos: tools
	$(GO) run ./e2e/chaos --seed $(SEEDS) --minutes $(MINUTES) --report docs/RELIABILITY.md

lint: $(LINTER)
	$(GO) vet ./...
	$(LINTER) run ./...
	cd deploy/charttest && export GOFLAGS="$${GOFLAGS:-} -mod=mod" && $(GO) vet . && $(CURDIR)/$(LINTER) run .
	$(MAKE) --no-print-directory vuln

# Known vulnerabilities that the binary's code reaches. Whether there are any
# cannot be told without the database, which is said, and fails nothing.
vuln:
	GOBIN=$(CURDIR)/.tools/bin $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK)
	@status=0; said=$$(.tools/bin/govulncheck ./cmd/... 2>&1) || status=$$?; \
	if [[ $$status == 1 && $$said == *"fetching vulnerabilities"* ]]; then \
		echo "vuln: NOT CHECKED, the database of vulnerabilities cannot be reached: $$said"; \
	else \
		echo "$$said"; exit $$status; \
	fi

# How much of each package its own tests run; docs/TESTING.md says what is not,
# and why.
cover: tools
	$(GO) test -cover -p 2 -timeout 20m $(UNIT) | awk '/coverage:/ { for (i = 1; i < NF; i++) if ($$i == "coverage:") print $$(i + 1) "\t" ($$1 == "ok" ? $$2 : $$1) }' | sort -n

# The benchmarks of the packages, a node beside its peers (the table in the
# README), and the rehearsal of a release.
bench: tools
	$(GO) test -run '^$$' -bench . -benchmem -p 1 -timeout 60m $(UNIT)
	$(GO) run ./e2e/bench
	$(GO) run ./e2e/rehearsal

# The profile that the compiler optimizes the binary by (pgo), from the node at
# its usual work.
pgo: tools
	$(GO) run ./e2e/bench --only 'manifest|blob-parallel|crowd' --profile .tools/profiles
	$(GO) tool pprof -proto .tools/profiles/*.cpu.pprof > cmd/entrepot/default.pgo

# Every fuzz target for FUZZTIME, on top of the seeds that `make test` runs. What is
# new is made smaller a few times only: with goroutines at work, it is new each time.
fuzz:
	for pkg in $(UNIT); do \
		for target in $$($(GO) test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x "$$pkg"; \
		done; \
	done

# Built one after the other, here and not in the middle of a test.
tools:
	$(GO) run ./e2e/testenv/cmd/tools

$(LINTER):
	@echo "building golangci-lint $(GOLANGCI) (once, a few minutes)"
	GOBIN=$(CURDIR)/.tools/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	mv .tools/bin/golangci-lint $@

clean:
	rm -rf bin build data .tools
