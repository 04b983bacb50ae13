"""Runs code under transformers 4, which lies apart from the transformers 5 that the tests run with.

`make .venv/ready` puts it into .venv/transformers4; the environment variable JANEOX_TRANSFORMERS4 names another folder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "transformers4"


def run_transformers4(script: str, *args: object) -> Any:
    """Runs the Python code `script` with `args` in its `sys.argv[1:]`; returns the JSON on its last line of output.

    Raises:
        FileNotFoundError: transformers 4 is not there.
        RuntimeError: the script failed; holds what it wrote to stderr.
    """
    folder = Path(os.environ.get("JANEOX_TRANSFORMERS4", FOLDER))
    if not (folder / "transformers").is_dir():
        raise FileNotFoundError(f"{folder}: no transformers 4 here; run `make .venv/ready` or set JANEOX_TRANSFORMERS4")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"the script under transformers 4 failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
