"""Run by torchrun for runs.together: several runs of `janeox`, one after the other, in the same processes.

torchrun … tests/together.py JSON: a list of argument lists
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from janeox.cli import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    for arguments in json.loads(sys.argv[1]):
        if arguments[0] == "copy":
            if dist.get_rank() == 0:
                shutil.copytree(*map(Path, arguments[1:]), dirs_exist_ok=True)
            dist.barrier()
        elif code := main(arguments):
            sys.exit(code)
