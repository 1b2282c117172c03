#!/usr/bin/env bash
# Installs Chromium for tests/browser where apt-get can. Where it cannot, it says why, and those tests are skipped.
set -euo pipefail

has_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        if [[ -n "$name" ]] && "$name" --version &> /dev/null; then  # Ubuntu's is a stub that only names a snap
            return
        fi
    done
    return 1
}

go_without() {
    echo "launch/browser.sh: no Chromium, so tests/browser will be skipped: $1" >&2
    exit
}

if has_chromium; then
    exit
fi
if ! command -v apt-get > /dev/null; then
    go_without "there is no apt-get to install it; if it is not on PATH, set CHROMIUM to where it is"
fi
if [[ "$(id -u)" != 0 ]]; then
    go_without "only root can install it: sudo apt-get install chromium"
fi
echo "installing Chromium"
export DEBIAN_FRONTEND=noninteractive
log="$(timeout 300 apt-get -q update 2>&1 && timeout 600 apt-get -qy install --no-install-recommends chromium 2>&1)" ||
    go_without "apt-get failed: $(tail -n 1 <<< "$log")"
has_chromium || go_without "the package chromium has none that runs; set CHROMIUM to one that does"
