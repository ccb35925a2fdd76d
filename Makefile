# What can I run? `make help` tells.

UV_VERSION := 0.13.8
# A uv on the PATH will do; else one is installed into this folder.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := .venv/bin
COMPOSE := docker compose -f infra/compose.yaml
SOURCES := libs services tests
# Each test process needs a virtual host of its own, which we cannot make on somebody else's RabbitMQ.
TEST_PROCESSES := $(if $(DAYBOOK_TEST_RABBITMQ_URL),0,2)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all check format bench migrate asyncapi images up down clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.complete ## Install everything into .venv (the other targets do it by themselves)

.uv/bin/uv:
	@echo "Installing uv"
	@infra/install-uv $(UV_VERSION)

.venv/.complete: uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml) | $(filter .uv/%,$(UV))
	@echo "Installing the locked dependencies into .venv"
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@

run: setup ## Run all of Daybook here, with a demo shop
	@$(BIN)/daybook run

test: setup ## Run the tests
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

test-all: check test bench ## Checks, tests and benchmarks

check: setup ## Formatting, lint, types, import contracts, documentation
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.docs.document_checks

format: setup ## Format, and mend what lint can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: setup ## Print the benchmark tables
	@$(BIN)/python -m pytest tests/benchmarks -m benchmark -s -q

migrate: setup ## Bring the database at DAYBOOK_DATABASE_URL up to the newest schema
	@$(BIN)/daybook migrate

asyncapi: setup ## Write docs/asyncapi.json, what producers send, anew
	@$(BIN)/daybook asyncapi > docs/asyncapi.json

images: ## Build the images of the services and of the daybook command
	@$(COMPOSE) build

up: ## Run the compose stack
	@$(COMPOSE) up --build --wait

down: ## Stop the compose stack; its data stays
	@$(COMPOSE) down

clean: ## Remove what was installed and all private data
	@rm -rf .venv .uv .daybook
