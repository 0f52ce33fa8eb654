# make run: a fleet of three hosts on this machine, with the examples, until make fleet-down. make fleet N=5: a fleet of five.
# make test: everything, real containerd included. All of them install what is missing.
.DEFAULT_GOAL := build
SHELL := /bin/bash

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
# The Kubernetes whose API is served, as kubectl compares versions: k8s.io/api v0.37.2 is that of Kubernetes v1.37.2.
KUBERNETES = $(shell go list -m -f '{{.Version}}' k8s.io/api | sed 's/^v0\./v1./')
STAMP = k8s.io/component-base/version
LDFLAGS = -s -w -X main.version=$(VERSION) \
	-X $(STAMP).gitVersion=$(KUBERNETES)+picket.$(VERSION:v%=%) -X $(STAMP).gitCommit=$(COMMIT) \
	-X $(STAMP).gitMajor=1 -X $(STAMP).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES)))

export CGO_ENABLED = 0

.PHONY: test-deps build run fleet fleet-down stop test lint fmt generate bench soak race clean deps

build:
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

deps:
	@scripts/install-deps.sh

test-deps: deps
	@scripts/test-packages.sh

run: deps build
	@go run ./scripts/run

# fleet starts N hosts and nothing on them.
N ?= 3
fleet: deps build
	@go run ./scripts/run fleet $(N)

fleet-down stop:
	@go run ./scripts/run fleet-down

test: test-deps
	go test -timeout 25m ./...

# race needs a C compiler.
race: test-deps
	CGO_ENABLED=1 go test -race -timeout 30m ./...

lint:
	scripts/tool golangci-lint run ./...

fmt:
	scripts/tool golangci-lint fmt ./...

generate:
	go generate ./...

# bench prints what the bars of the issues are measured by; nothing fails because of time.
bench: deps build
	go test -run '^$$' -bench . -benchtime 20x -timeout 60m ./...

# soak runs the long campaigns that `make test` leaves out.
soak: test-deps
	PICKET_SOAK=1 go test -count 1 -timeout 8h ./...

clean:
	rm -rf bin .scratch
