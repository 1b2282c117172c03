"""Checks the project on a machine with one GPU and no network; see launch/device_check.sh.

It runs one part after another, each a process with its own time limit, and after each rewrites the JSON file: the
machine, and of every part whether it is ok, failed, skipped or has not run yet, its seconds, its figures, and the end
of its output if it failed. Needs Python's standard library alone, until what is missing has been installed from wheels.
"""

import argparse
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from device_parts import ROOT, SLOWER, Part, parts
from device_wheels import download, install

BUILD = ROOT / "build"
SECONDS = 460  # for all parts on a GPU; together with starting and writing less than 8 minutes
_SECONDS_TO_DUMP = 2  # stacks, when it is killed
_TAIL = 4000  # characters of a failed part's output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if a part failed."""
    options = _parse(arguments)
    if options.prepare:
        try:
            download(options.wheels)
        except subprocess.CalledProcessError as error:
            print(error.stdout, file=sys.stderr, end="")
            return 1
        size = sum(file.stat().st_size for file in options.wheels.iterdir())
        print(f"{options.wheels}: {len(list(options.wheels.iterdir()))} wheels, {size / 2**20:.1f} MiB")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that parts are ended too
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with TemporaryDirectory(prefix="device-check-") as folder:
        work = Path(folder)
        return check(parts(options.device, work), options, work)


def check(all_parts: Sequence[Part], options: argparse.Namespace, work: Path) -> int:
    """Install what is missing, then run the parts, and keep the report up to date; return 1 if anything failed.

    The first part describes the machine. Without its answer no other runs.
    """
    began = time.monotonic()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["bash", "launch/device_check.sh", *sys.argv[1:]]),
        "device": options.device,
        "machine": None,
        "parts": {name: {"status": "not run"} for name in ["packages", *(part.name for part in all_parts)]},
    }
    site = work / "site"
    report["parts"]["packages"] = install_packages(options.wheels, site)
    environment = environment_of(options.device, site)
    deadline = began + SECONDS * (1 if options.device == "cuda" else SLOWER)
    for part in all_parts:
        _write(report, began, options.json)
        print(f"{part.name} ...", flush=True)
        if part is not all_parts[0] and report["parts"][all_parts[0].name]["status"] != "ok":
            result: dict[str, Any] = {"status": "skipped", "reason": f"{all_parts[0].name} failed"}
        elif reason := part.skip(report["machine"] or {}):
            result = {"status": "skipped", "reason": reason}
        else:
            result = run(part, min(part.limit, deadline - time.monotonic()), environment, work)
        report["parts"][part.name] = result
        if part is all_parts[0]:
            report["machine"] = result.pop("figures", None)
        print(f"{part.name}: {result['status']}", *(result[key] for key in ("reason",) if key in result), flush=True)
    _write(report, began, options.json)
    print(f"{options.json}: {report['seconds']:.0f} s")
    return int(any(result["status"] == "failed" for result in report["parts"].values()))


def install_packages(wheels: Path, site: Path) -> dict[str, Any]:
    """Install what is missing here, and report it as a part."""
    began = time.monotonic()
    try:
        result: dict[str, Any] = {"status": "ok", "installed": install(wheels, site)}
    except subprocess.CalledProcessError as error:
        result = {
            "status": "failed",
            "reason": "pip could not install what is missing",
            "output": error.stdout[-_TAIL:],
        }
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def environment_of(device: str, site: Path) -> dict[str, str]:
    """Return the variables that all parts get."""
    threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    search = os.pathsep.join([str(ROOT), str(site)])
    return {**os.environ, **threads, "PYTHONPATH": search, "PYTHONFAULTHANDLER": "1", "COLUMNS": "140"}


def run(part: Part, limit: float, environment: dict[str, str], work: Path) -> dict[str, Any]:
    """Run a part for ``limit`` seconds at most, and report on it."""
    began, file = time.monotonic(), work / f"{part.name}.log"
    if limit <= 0:
        return {"status": "failed", "reason": "the parts before it have used up all of the time"}
    status = _run(part, limit, environment, file)
    result: dict[str, Any] = {"status": "ok" if status == 0 else "failed"}
    if status is None:
        result["reason"] = f"killed after {limit:.0f} s"
    elif status:
        result["reason"] = f"exit status {status}"
    try:
        result["figures"] = part.read()
    except (OSError, ValueError, LookupError) as error:
        result = {"reason": f"its figures cannot be read: {error}", **result, "status": "failed"}
    if result["status"] == "failed":
        result["output"] = file.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    result["command"] = shlex.join(["python", *part.arguments])
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _run(part: Part, limit: float, environment: dict[str, str], file: Path) -> int | None:
    """Return the exit status, or None if the part had to be killed. No process of it is left."""
    with file.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *part.arguments],
            cwd=ROOT,
            env={**environment, **part.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            # With SIGABRT Python tells where it hangs: first that process, then those that it has started, lest their
            # lines mix.
            for abort in (os.kill, os.killpg):
                with suppress(ProcessLookupError):
                    abort(process.pid, signal.SIGABRT)
                time.sleep(_SECONDS_TO_DUMP)
            return None
        finally:
            _kill_group(process)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End the process and those that it has started, which share its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # all have ended
        return
    process.wait()


def _write(report: dict[str, Any], began: float, file: Path) -> None:
    """Replace the report, which is complete at any moment."""
    report["seconds"] = round(time.monotonic() - began, 1)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(file)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--json",
        type=Path,
        default=BUILD / "device-check.json",
        metavar="FILE",
        help="the report; default: build/device-check.json",
    )
    parser.add_argument("--wheels", type=Path, default=BUILD / "wheels", metavar="DIR", help="default: build/wheels")
    parser.add_argument("--prepare", action="store_true", help="download wheels to --wheels, and do nothing else")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
