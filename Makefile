# Development tasks; `make help` lists them.

UV_VERSION := 0.13.8
# The uv on the PATH, or else one that is installed into .uv.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := .venv/bin
COMPOSE := docker compose -f infra/compose.yaml
SOURCES := libs services tests
# Each test process needs its own virtual host, which tests cannot create on an external RabbitMQ.
# More processes than cores, because the tests wait more than they compute.
TEST_PROCESSES := $(if $(DAYBOOK_TEST_RABBITMQ_URL),0,4)
PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help setup run test test-unit test-all check format bench mutants migrate asyncapi images up down clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.complete ## Install everything into .venv (other targets depend on it)

.uv/bin/uv:
	@echo "Installing uv"
	@infra/install-uv $(UV_VERSION)

.venv/.complete: uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml) | $(filter .uv/%,$(UV))
	@echo "Installing the locked dependencies into .venv"
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@

run: setup ## Run Daybook on this machine, with a demo shop
	@$(BIN)/daybook run

test: setup ## Run the tests
	@$(PYTEST)

test-unit: setup ## Run the tests that need no server
	@$(PYTEST) tests/unit tests/docs

test-all: check ## Run the checks, all tests with their long versions, the benchmarks and mutants
	@$(PYTEST) -m "not benchmark" --hypothesis-profile thorough -o timeout=1200
	@$(MAKE) bench mutants

check: setup ## Check formatting, lint, types, import contracts and documentation
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.docs.document_checks

format: setup ## Format the code and apply lint fixes
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: setup ## Run the benchmarks and print their tables
	@$(BIN)/python -m pytest tests/benchmarks -m benchmark -s -q

mutants: setup ## Try COUNT=40 small faults, chosen by SEED=1; print those that no test notices
	@$(BIN)/python -m tests.mutants.run

migrate: setup ## Upgrade the schema of the database at DAYBOOK_DATABASE_URL
	@$(BIN)/daybook migrate

asyncapi: setup ## Regenerate docs/asyncapi.json, the contract of the intake queues
	@$(BIN)/daybook asyncapi > docs/asyncapi.json

images: ## Build the container images of the services and the daybook command
	@$(COMPOSE) build

up: ## Build and start the compose stack
	@$(COMPOSE) up --build --wait

down: ## Stop the compose stack; its data remains
	@$(COMPOSE) down

clean: ## Remove the installed tools and all private data
	@rm -rf .venv .uv .daybook
