"""What gpu-check found: expectations and whether they were met, written as JSON and Markdown after every part.

A row is {"name", "expected", "found", "verdict", "why"}; the verdict is "met", "missed" or "not run". Parts that an earlier
call measured on the same commit and device stay, so that several short calls make one report.
"""
import json
import os


class Report:
    def __init__(self, folder: str, machine: dict) -> None:
        self.folder, self.machine, self.parts = folder, machine, {}
        self.path = os.path.join(folder, "gpu-check.json")
        self.of_this_call = []
        try:
            with open(self.path) as f:
                earlier = json.load(f)
        except (OSError, ValueError):
            return
        same = all(earlier.get("machine", {}).get(key) == machine.get(key) for key in ("commit", "device"))
        self.parts = earlier.get("parts", {}) if same else {}

    def begin(self, part: str, whole: bool = True) -> None:
        """Forgets what an earlier call said about this part; of one that was narrowed down, only rows that come again."""
        if whole or part not in self.parts:
            self.parts[part] = {"rows": []}

    def row(self, part: str, name: str, expected: str, found: str, met: bool | None, why: str = "") -> None:
        verdict = "not run" if met is None else "met" if met else "missed"
        row = {"name": name, "expected": expected, "found": found, "verdict": verdict, "why": why}
        rows = self.parts[part]["rows"]
        new = {id(other) for other in self.of_this_call}
        at = next((i for i, other in enumerate(rows) if other["name"] == name and id(other) not in new), len(rows))
        rows[at:at + 1] = [row]
        self.of_this_call.append(row)
        print(f"{verdict:8} {part}: {name}: {found}{' (' + why + ')' if why else ''}", flush=True)

    def attach(self, part: str, key: str, value) -> None:
        """Figures beside the rows: tables of kernels, full results of programs."""
        self.parts[part][key] = value

    def count(self, verdict: str) -> int:
        """Rows of this call."""
        return sum(row["verdict"] == verdict for row in self.of_this_call)

    def save(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        document = {"machine": self.machine, "parts": self.parts}
        for path, text in ((self.path, json.dumps(document, indent=1) + "\n"),
                           (os.path.join(self.folder, "gpu-check.md"), markdown(document))):
            with open(path + ".part", "w") as f:
                f.write(text)
            os.replace(path + ".part", path)


def markdown(document: dict) -> str:
    machine = document["machine"]
    lines = ["# gpu-check", "", f"{machine['date']}, commit {machine['commit']}: {machine['device'] or 'no device'}"
             + (f", driver {machine['driver']}" if machine.get("driver") else "")
             + (f", {machine['compiler']}" if machine.get("compiler") else "") + "."]
    for name, part in document["parts"].items():
        lines += ["", f"## {name}", "", "| what | expected | found | verdict |", "| --- | --- | --- | --- |"]
        for row in part["rows"]:
            why = f": {row['why']}" if row["why"] else ""
            lines.append(f"| {row['name']} | {row['expected']} | {row['found']} | {row['verdict']}{why} |".replace("\n", " "))
        if part.get("kernels"):
            lines += ["", "| kernel | architecture | registers | static shared bytes | stack bytes | spilled bytes |",
                      "| --- | --- | --- | --- | --- | --- |"]
            for k in part["kernels"]:
                lines.append(f"| `{k['kernel']}` | {k['architecture']} | {k['registers']} | {k['shared_bytes']} "
                             f"| {k['stack_bytes']} | {k['spill_bytes']} |")
    return "\n".join(lines) + "\n"
