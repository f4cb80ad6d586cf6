# make demo   builds musher and runs the example system
# make test   installs what the tests need and runs all of them
# make bench  measures musher beside PM2 (BENCH="--quick" for a short run)

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
MUSHER := $(CURDIR)/target/$(HOST)/release/musher

.PHONY: build demo test bench npm

# The target is named so that build scripts and proc macros stay dynamic.
build:
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked -p musher -p musher-load --bins --target $(HOST)

demo: build
	MUSHER=$(MUSHER) node examples/shop/demo.mjs

test:
	MUSHER=$(MUSHER) scripts/test

bench: build npm
	bench/run --musher $(MUSHER) --pm2 tests/npm/node_modules/.bin/pm2 $(BENCH)

npm: tests/npm/node_modules/.package-lock.json

tests/npm/node_modules/.package-lock.json: tests/npm/package-lock.json
	cd tests/npm && npm ci --no-audit --no-fund
	@touch $@
