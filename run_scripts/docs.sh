#!/usr/bin/env bash
# Builds the pages as a site: docs/_build/html/index.html. A warning is an error. Arguments go to sphinx-build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
bash run_scripts/setup.sh
.venv/bin/python -m sphinx -W --keep-going -q -b html "$@" docs docs/_build/html
echo "wrote docs/_build/html/index.html"
