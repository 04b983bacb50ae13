"""Every benchmark that needs nothing but this machine, one after the other: `make bench`."""

import subprocess
import sys

BENCHMARKS = ("benchmarks.generation", "benchmarks.open_model")


def main() -> None:
    for name in BENCHMARKS:
        print(f"── {name}", flush=True)
        subprocess.run([sys.executable, "-m", name], check=True)


if __name__ == "__main__":
    main()
