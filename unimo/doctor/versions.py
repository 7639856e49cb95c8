"""What is installed, and whether it fits together. Imports nothing of what it examines.

The ranges are those of `setup.py`, the tested versions those of `constraints.txt`, or without paddlenlp and
paddleclas those of `constraints-lean.txt`.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from unimo.doctor.report import Options, Row, verdict

ROOT = Path(__file__).resolve().parents[2]
CPU_BUILD, GPU_BUILD = "paddlepaddle", "paddlepaddle-gpu"
GPU_INDEX = "https://www.paddlepaddle.org.cn/packages/stable/cu126/"
INSTALL = {
    CPU_BUILD: 'pip install -c constraints.txt -e ".[cpu]"',
    GPU_BUILD: f'pip install -c constraints.txt -e ".[gpu]" --extra-index-url {GPU_INDEX}',
}
PYTHONS = ((3, 10), (3, 14))
"""First version of Python that works, and first after it that was not tried."""
ZOO = ("paddlenlp", "paddleclas")
"""Packages of the extra `zoo`, which hold back others."""
FITTED = (CPU_BUILD, GPU_BUILD, *ZOO, "visualdl")
"""Packages whose own requirements are looked at."""
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?([^;()]*)\)?\s*(;.*)?")
_COMPARE = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


def examine(options: Options) -> list[Row]:
    """Examine the packages of this interpreter."""
    found = {
        normal(each.metadata["Name"]): each
        for each in importlib.metadata.distributions()
        if each.metadata["Name"]
    }
    versions = {name: each.version for name, each in found.items()}
    needs = {name: list(found[name].requires or ()) for name in FITTED if name in found}
    has_zoo = any(name in versions for name in ZOO)
    driver_seen = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
    return [
        python_row(sys.version_info[:2]),
        build_row(versions, driver_seen),
        fit_row(versions, required(ROOT / "setup.py", has_zoo), needs),
        pinned_row(versions, ROOT / ("constraints.txt" if has_zoo else "constraints-lean.txt")),
    ]


def python_row(version: tuple[int, int]) -> Row:
    """Judge the version of Python."""
    text = ".".join(map(str, version))
    advice = "make the environment with Python 3.11: python3.11 -m venv .venv"
    return verdict("Python", PYTHONS[0] <= version < PYTHONS[1], f"{text}; 3.10 to 3.13 work", advice)


def build_row(versions: Mapping[str, str], has_gpu: bool) -> Row:
    """Judge the build of Paddle: exactly one, of a version that works, for the device that is here.

    Args:
        versions: installed packages.
        has_gpu: whether the driver of an NVIDIA GPU is loaded.
    """
    name = "Paddle build"
    here = {build: versions[build] for build in (CPU_BUILD, GPU_BUILD) if build in versions}
    figure = ", ".join(f"{build} {version}" for build, version in here.items()) or "no Paddle"
    wanted = GPU_BUILD if has_gpu else CPU_BUILD
    command = INSTALL[wanted]
    if not here:
        return Row(name, "not here", figure, command)
    if len(here) > 1:
        remove = (
            f"both own the folder paddle/, the last one installed wins: pip uninstall -y {' '.join(here)}"
        )
        return Row(name, "wrong", figure, f"{remove}; {command}")
    ((build, version),) = here.items()
    if not fits(version, ">=3.3.1,<3.4"):
        trap = (
            "the newest that PyPI has; later ones are on Paddle's own index: " if build == GPU_BUILD else ""
        )
        return Row(
            name, "wrong", f"{figure}; 3.3.1 works", f"{trap}pip uninstall -y {build}; {INSTALL[build]}"
        )
    if has_gpu and build == CPU_BUILD:
        return Row(name, "wrong", f"{figure}, but a GPU is here", f"pip uninstall -y {build}; {command}")
    return Row(name, "ok", figure)


def fit_row(versions: Mapping[str, str], required: Iterable[str], needs: Mapping[str, Iterable[str]]) -> Row:
    """Judge whether the installed packages are what `unimo` and each other ask for.

    Args:
        versions: installed packages.
        required: requirements of `unimo`.
        needs: requirements of the packages that it uses, those with conditions are left out.
    """
    asked = [("unimo", text) for text in required]
    asked += [(name, text) for name, listed in needs.items() for text in listed if ";" not in text]
    problems: dict[str, None] = {}
    for owner, text in asked:
        package, wanted, _ = _REQUIREMENT.fullmatch(text).groups()
        version = versions.get(normal(package))
        if version is None:
            problems[f"{package} is missing ({owner} needs it)"] = None
        elif not fits(version, wanted):
            problems[f"{package} {version} ({owner} needs {wanted.strip()})"] = None
    if {"opencv-python", "opencv-python-headless"} <= versions.keys():
        problems["opencv-python and opencv-python-headless both own the folder cv2/"] = None
    build = GPU_BUILD if GPU_BUILD in versions else CPU_BUILD
    figure = "; ".join(problems) or f"{len(asked)} requirements, all met"
    return verdict("packages fit together", not problems, figure, INSTALL[build])


def pinned_row(versions: Mapping[str, str], constraints: Path) -> Row:
    """Compare the installed packages with the versions that were tested together; others may work."""
    tested = pins(constraints)
    here = {name: versions[name] for name in tested if name in versions}
    other = [
        f"{name} {version} ({tested[name]})" for name, version in here.items() if version != tested[name]
    ]
    same = f"{len(here) - len(other)} of {len(here)} packages as in {constraints.name}"
    advice = f"if something fails, install with -c {constraints.name}" if other else ""
    return Row("tested versions", "ok", "; ".join([same, *other]), advice)


def normal(name: str) -> str:
    """Return the one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fits(version: str, wanted: str) -> bool:
    """Return whether a version meets conditions such as `>=3.3.1,<3.4`; those of other forms count as met."""
    number = _numbers(version)
    for condition in filter(None, (part.strip() for part in wanted.split(","))):
        operator, text = re.fullmatch(r"([<>=!~]*)\s*(.*)", condition).groups()
        if operator not in _COMPARE:
            continue
        if text.endswith(".*"):
            bound = _numbers(text[:-2])
            number = number[: len(bound)]
        else:
            bound = _numbers(text)
        length = max(len(number), len(bound))
        padded = [value + (0,) * (length - len(value)) for value in (number, bound)]
        if not _COMPARE[operator](*padded):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()


def required(setup: Path, with_zoo: bool) -> list[str]:
    """Read the list REQUIRED of `setup.py`, and the extra `zoo` if asked for, without running it."""
    body = ast.parse(setup.read_text(encoding="utf8")).body
    lists = {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}
    found = ast.literal_eval(lists["REQUIRED"])
    if with_zoo:
        extras = lists["EXTRAS"]
        places = [key.value for key in extras.keys]
        found += ast.literal_eval(extras.values[places.index("zoo")])
    return found


def pins(constraints: Path) -> dict[str, str]:
    """Read the pinned versions that hold for every version of Python."""
    lines = constraints.read_text(encoding="utf8").splitlines()
    pairs = (line.partition(";")[0].split("==") for line in lines if "==" in line and line[0] != "#")
    return {normal(name): version.strip() for name, version in pairs}
