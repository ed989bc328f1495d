#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes attempts, some at a time: in, a file with a list of {script, environment, seconds}; out, what each printed."""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

AT_ONCE = 8


def attempt(one):
    done = subprocess.run(
        ["timeout", "--kill-after=2", str(one["seconds"]), "sh", "-c", one["script"]],
        env={**os.environ, **one["environment"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout.decode(errors="replace")


with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    json.dump(list(pool.map(attempt, json.loads(Path(sys.argv[1]).read_text()))), sys.stdout)
