"""What the figures of tests/bench were measured on."""
import json
import os
import platform
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def machine(reckon: str, threads: int) -> dict:
    def first(command):
        try:
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except OSError:
            return None
    return {"doctor": json.loads(first([reckon, "doctor", "--json"]) or "null"),
            "kernel": platform.release(), "commit": first(["git", "-C", ROOT, "rev-parse", "HEAD"]),
            "date": time.strftime("%Y-%m-%d"), "load_before": os.getloadavg()[0], "threads": threads}
