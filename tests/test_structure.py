"""The shape of the house: who imports whom, how long things are, what is documented, what stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "unimo").rglob("*.py"))
DETECTOR = sorted((ROOT / "ppdet_features").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MIN_DUPLICATE = 400, 70, 8

# Every package and module of the top level, from the bottom up: each may import those before it, and itself.
ORDER = (
    "unimo._runtime",
    "unimo.errors",
    "unimo.signals",
    "unimo.limits",
    "unimo.files",
    "unimo.digests",
    "unimo.ranges",
    "unimo.plain_yaml",
    "unimo.config",
    "unimo.cli",
    "unimo.registry",
    "unimo.settings",
    "unimo.run_series",
    "unimo.progress",
    "unimo.jobs",
    "unimo.weights",
    "unimo.metrics",
    "unimo.nn",
    "unimo.losses",
    "unimo.distributed",
    "unimo.data",
    "unimo.augment",
    "unimo.models",
    "unimo.tasks",
    "unimo.inference",
    "unimo.training",
    "ppdet_features",
    "unimo.analysis",
    "unimo.benchmark",
    "unimo.doctor",
    "unimo.studies",
    "tools",
)
# The front page of the package offers what lies above it (unimo.load), and its version to everyone.
FRONT = "unimo"
# Programs rather than library: the face that all tools share and that of those that train, the launcher, the
# peers of the benchmark.
PROGRAMS = (
    "unimo/cli.py",
    "unimo/training/command.py",
    "unimo/training/launch.py",
    "unimo/benchmark/peers/",
)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf8"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, *, only_module_level: bool = False, everything: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; those under `if TYPE_CHECKING:` only with `everything`."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    waiting: list[ast.AST] = [parse(path)]
    while waiting:
        node = waiting.pop()
        if (is_type_checking(node) and not everything) or (
            only_module_level and isinstance(node, FunctionNode)
        ):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def import_graph() -> dict[str, set[str]]:
    """File -> the files that it imports, also inside functions and under TYPE_CHECKING."""
    files = {module_name(path): path for path in [*LIBRARY, *DETECTOR, *TOOLS]}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        graph[module] = set()
        for name in imports(path, everything=True):
            while name and name not in files:
                name = name.rpartition(".")[0]
            if name and name != module:
                graph[module].add(name)
    return graph


def place(module: str) -> str:
    """The package or module of the top level that a file belongs to."""
    first, _, rest = module.partition(".")
    return first if first in ("tools", "ppdet_features") or not rest else f"{first}.{rest.split('.')[0]}"


def test_every_package_has_a_place_and_imports_only_what_lies_below_it():
    graph = import_graph()
    assert {place(module) for module in graph} <= {*ORDER, FRONT}
    wrong = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if FRONT not in (place(module), place(other))
        and ORDER.index(place(other)) > ORDER.index(place(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_files_import_each_other_in_a_circle():
    graph = import_graph()

    def reached(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            for other in graph[waiting.pop()] - found:
                found.add(other)
                waiting.append(other)
        return found

    assert not [module for module in graph if module != FRONT and module in reached(module)]


def test_metrics_and_contracts_know_nothing_of_the_rest():
    for module, others in import_graph().items():
        if place(module) == "unimo.metrics":
            assert {place(other) for other in others} <= {"unimo.metrics", "unimo.errors"}, module


def test_models_do_not_import_their_siblings():
    packages = {path.name for path in (ROOT / "unimo" / "models").iterdir() if path.is_dir()}
    wrong = []
    for path in (ROOT / "unimo" / "models").glob("*/*.py"):
        siblings = packages - {path.parent.name}
        for name in imports(path):
            if name.startswith("unimo.models.") and name.split(".")[2] in siblings:
                wrong.append(f"{relative(path)} imports {name}")
    assert not wrong


def test_data_and_contracts_import_no_paddle_at_module_level():
    light = [*(ROOT / "unimo" / "data").rglob("*.py"), *(ROOT / "unimo").glob("*.py")]
    light.remove(ROOT / "unimo" / "distributed.py")
    light += (ROOT / "unimo" / "models").glob("*/__init__.py")
    wrong = [
        f"{relative(path)} imports {name}"
        for path in light
        for name in imports(path, only_module_level=True)
        if name.split(".")[0] in {"paddle", "paddlenlp", "paddleclas", "visualdl"}
    ]
    assert not wrong


def test_files_and_functions_are_short():
    long = []
    for path in [*LIBRARY, *DETECTOR, *TOOLS, *TESTS]:
        lines = len(path.read_text(encoding="utf8").splitlines())
        limit = 120 if path in TOOLS else MAX_FILE
        if lines > limit:
            long.append(f"{relative(path)}: {lines} lines, at most {limit}")
        for node in ast.walk(parse(path)):
            if isinstance(node, FunctionNode) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION:
                long.append(f"{relative(path)}:{node.lineno} {node.name} has more than {MAX_FUNCTION} lines")
    assert not long


def public(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | FunctionNode]]:
    """Public classes, functions and methods, with dotted names."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for member in node.body:
                decorators = " ".join(map(ast.unparse, getattr(member, "decorator_list", [])))
                if isinstance(member, FunctionNode) and not member.name.startswith("_"):
                    if not re.search(r"\.setter|overload", decorators):
                        yield f"{node.name}.{member.name}", member
        elif isinstance(node, FunctionNode) and not node.name.startswith("_"):
            yield node.name, node


def says_something(docstring: str | None, name: str) -> bool:
    """A sentence with an end, of two words or more, that is more than the name in other letters."""
    if not docstring:
        return False
    first = docstring.strip().split("\n\n")[0].strip()
    words = re.findall(r"[a-z0-9]+", first.lower())
    own = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.split(".")[-1]).lower())
    return (
        len(words) >= 2 and set(words) - {"the", "a", "an"} != set(own) and bool(re.search(r"[.:?]", first))
    )


def documented_methods() -> dict[str, set[str]]:
    """Class name -> methods that it or a class above it documents; overriding them needs no second text."""
    classes = [
        node
        for path in [*LIBRARY, *DETECTOR]
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef)
    ]
    bases = {
        node.name: [ast.unparse(base).split(".")[-1].split("[")[0] for base in node.bases] for node in classes
    }
    own = {node.name: {m.name for m in node.body if isinstance(m, FunctionNode) and ast.get_docstring(m)}
           for node in classes}  # fmt: skip

    def collect(name: str, below: tuple[str, ...] = ()) -> set[str]:
        above = [base for base in bases.get(name, []) if base not in (name, *below)]
        return own.get(name, set()).union(*(collect(base, (name, *below)) for base in above))

    return {name: collect(name) for name in own}


def test_everything_public_has_a_docstring():
    silent, inherited = [], documented_methods()
    for path in [*LIBRARY, *DETECTOR, *TOOLS]:
        tree = parse(path)
        if not says_something(ast.get_docstring(tree), path.stem):
            silent.append(f"{relative(path)}: module")
        silent += [
            f"{relative(path)}:{node.lineno} {name}"
            for name, node in public(tree)
            if not says_something(ast.get_docstring(node), name)
            and node.name not in inherited.get(name.rpartition(".")[0], ())
        ]
    assert not silent, "\n".join(silent)


def test_public_functions_are_annotated():
    bare = []
    for path in [*LIBRARY, *DETECTOR, *TOOLS]:
        for name, node in public(parse(path)):
            if not isinstance(node, FunctionNode):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            arguments += filter(None, [node.args.vararg, node.args.kwarg])
            missing = [a.arg for a in arguments if a.annotation is None and a.arg not in {"self", "cls"}]
            if missing or node.returns is None:
                bare.append(f"{relative(path)}:{node.lineno} {name}: {', '.join(missing) or 'return'}")
    assert not bare


def test_no_function_is_written_twice():
    places = defaultdict(list)
    for path in [*LIBRARY, *DETECTOR, *TOOLS]:
        for node in ast.walk(parse(path)):
            if not isinstance(node, FunctionNode):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and body[-1].end_lineno - body[0].lineno + 1 >= MIN_DUPLICATE:
                text = "\n".join(ast.dump(statement) for statement in body)
                places[text].append(f"{relative(path)}:{node.lineno} {node.name}")
    assert not [copies for copies in places.values() if len(copies) > 1]


def test_only_tools_print():
    printing = [
        f"{relative(path)}:{node.lineno}"
        for path in LIBRARY
        if not relative(path).startswith(PROGRAMS)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing


def test_shell_files_hold_no_hyper_parameters():
    parameter = re.compile(r"\b(optim|train|data|model)\.\w+=|--(lr|batch.size|epochs|steps)\b|\blr=")
    wrong = [
        f"{path.name}:{number} {line}"
        for path in sorted((ROOT / "scripts").glob("*.sh"))
        for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1)
        if parameter.search(line.split("#")[0])
    ]
    assert not wrong


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_unimo_does_not_import_paddle():
    code = "import sys, unimo, unimo.settings; unimo.list_models(); print('paddle' in sys.modules)"
    assert run_python(code).strip() == "False"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_help_is_light_and_shows_an_example(tool: Path):
    code = (
        f"import runpy, sys; sys.argv = [{str(tool)!r}, '--help']\n"
        f"try: runpy.run_path({str(tool)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('LOADED', sorted({'paddle', 'paddlenlp', 'paddleclas'} & set(sys.modules)))"
    )
    text = run_python(code)
    assert text.rstrip().endswith("LOADED []")
    assert f"python tools/{tool.name}" in text
