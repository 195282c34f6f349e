# Each target is one line over `stoa`; stack/bootstrap makes the virtual environment first, if it isn't there.
STOA = @stack/bootstrap && .venv/bin/stoa
S ?= order

.DEFAULT_GOAL := help
.PHONY: help up down status logs reset demo test test-cluster model mutants lint gen audit chaos bench bench-million profile soak lock apply images infra new charts promote workflows

help:    ## show this
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/ ##/' | awk -F ' *## ' '{printf "  make %-13s %s\n", $$1, $$2}'

up:      ## start everything, and print where it is
	$(STOA) up

down:    ## stop everything; its data stays
	$(STOA) down

apply:   ## bring what runs to what the checkout is now
	$(STOA) apply

status:  ## what runs, and what it takes
	$(STOA) status

logs:    ## follow a log: make logs S=payment
	$(STOA) logs $(S) --follow

reset:   ## stop everything and delete its data
	$(STOA) reset

demo:    ## play a shopper
	$(STOA) demo

audit:   ## check that the books of all stores balance
	$(STOA) audit

test:    ## everything a change must pass, or some tests: make test T="services/order -k cancel"
	$(STOA) test $(T)

test-cluster: ## prove charts and mesh on the cluster of KUBECONFIG: make test-cluster T="install e2e"
	$(STOA) test-cluster $(T) $(A)

chaos:   ## break everything while shoppers buy, then audit: make chaos A="--seed 7 --minutes 5"
	$(STOA) chaos $(A)

bench:   ## measure requests and what they cost: make bench A="--scenario order --seconds 20"
	$(STOA) bench $(A)

bench-million: ## measure reads in a shop of a million products: about fifteen minutes
	$(STOA) bench --million $(A)

profile: ## a flame graph of a service under load: make profile S=payment
	$(STOA) profile $(S) $(A)

model:   ## explore the order saga deeper than the tests do
	$(STOA) model

mutants: ## do the tests notice mistakes in the code? make mutants A="--module 'stoa_order.*'"
	$(STOA) mutants $(A)

soak:    ## a moderate load for 20 minutes, to see what grows: make soak A="--minutes 5"
	$(STOA) soak $(A)

lint:    ## style, types, imports, lock, contracts, migrations: or make lint T="types imports"
	$(STOA) lint $(T)

charts:  ## check the charts and all that they render: or make charts T="units"
	$(STOA) charts $(T)

gen:     ## regenerate gen/ from proto/, events/ and the declarations
	$(STOA) gen

lock:    ## resolve the Python packages into requirements.lock
	$(STOA) lock $(A)

images:  ## build the container images: make images A="order edge --tag dev --sbom sbom"
	$(STOA) images $(A)

new:     ## write a new service: make new N=coupon A="--store mongo"
	$(STOA) new $(N) $(A)

promote: ## write what an environment runs: make promote E=production A="--from staging"
	$(STOA) promote $(E) $(A)

workflows: ## check the workflows of CI, and Argo CD's objects
	$(STOA) workflows

infra:   ## make and check the templates for AWS, without AWS: make infra A="--set size=medium"
	$(STOA) infra $(A)
