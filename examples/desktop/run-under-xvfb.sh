#!/usr/bin/env bash
# Runs a program with a window on a machine without a screen: run-under-xvfb.sh PROGRAM [ARGUMENT]...
#
# Debian: apt-get install --no-install-recommends xvfb xauth libgl1 libgl1-mesa-dri libx11-xcb1 libxcursor1 libxi6 libxkbcommon-x11-0
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 PROGRAM [ARGUMENT]..." >&2; exit 2; }
# Mesa's software driver; X11 even where a Wayland session is near.
export LIBGL_ALWAYS_SOFTWARE=1
unset WAYLAND_DISPLAY
exec timeout --kill-after=10 "${XVFB_TIMEOUT:-180}" xvfb-run -a -s "-screen 0 1280x800x24" "$@"
