"""House rules that a syntax tree can show: each over every file of src/stillroom, and each tried on planted faults."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

FILE_LINES, FUNCTION_LINES, PACKAGE_LINES, PUBLIC_NAMES = 400, 60, 12, 8
VAGUE = {"util", "utils", "common", "core", "misc", "manager", "managers", "helper", "helpers"}
SEES_RECIPE = ("__init__.py", "cli.py", "flow.py", "recipe.py", "service/", "cluster/") + (
    ("stages/", "catalogue.py", "demo.py")  # parts of flow and of cli in files of their own
)
MAY_THREAD = ("teachers/api_calls.py", "teachers/api_manners.py", "ledger.py", "training/batches.py")
MAY_THREAD_IN = "service/"
MAY_WAIT = ("service/", "loopback/")
STEP_BY_STEP = "service/rows/migrations/versions/"
"""A list of statements, written by Alembic and never changed again; its length says nothing."""
THREADS = {"threading", "_thread", "concurrent.futures", "multiprocessing.dummy", "multiprocessing.pool"}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
ONLY_IN = {"ray": "cluster/", "fastapi": "service/", "sqlalchemy": "service/"}
LOADERS = {"importlib.import_module", "importlib.reload", "importlib.__import__", "importlib.machinery", "runpy", "imp"}
QUANTITIES = {"latency", "duration", "elapsed", "timeout", "wait", "delay", "cost", "price", "age", "memory"}
UNITS = {"s", "ms", "us", "ns", "seconds", "minutes", "hours", "usd", "bytes", "mib", "gib", "share", "ratio", "rows"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

Found = Iterator[tuple[int, str]]


def imports(tree: ast.AST, package: str = "") -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every import; the name is empty for `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def package_of(path: str) -> str:
    """The package a file of src/stillroom belongs to."""
    return ".".join(["stillroom", *path.split("/")[:-1]])


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain, else nothing."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def names_module(module: str, name: str, wanted: set[str]) -> bool:
    """True where an import brings in one of the wanted modules, or something out of one."""
    return any(full == one or full.startswith(one + ".") for one in wanted for full in (module, f"{module}.{name}"))


def long_files(source: Any) -> Found:
    count = len(source.text.splitlines())
    if count > FILE_LINES:
        yield 1, f"{count} lines, and {FILE_LINES} are the most"


def long_functions(source: Any) -> Found:
    if source.path.startswith(STEP_BY_STEP):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, FUNCTIONS):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {count} lines, and {FUNCTION_LINES} are the most"


def vague_names(source: Any) -> Found:
    for part in source.path.removesuffix(".py").split("/"):
        if VAGUE & set(part.split("_")):
            yield 1, f"{part!r} does not say what is in it"


def asynchronous(source: Any) -> Found:
    if source.path.startswith(MAY_WAIT):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
            yield node.lineno, f"the library is synchronous; async belongs under {' and '.join(MAY_WAIT)}"
    for line, module, name in imports(source.tree):
        if names_module(module, name, {"asyncio", "anyio", "trio"}):
            yield line, f"{module} belongs under {' and '.join(MAY_WAIT)}"


def threads(source: Any) -> Found:
    if source.path.endswith(MAY_THREAD) or source.path.startswith(MAY_THREAD_IN):
        return
    for line, module, name in imports(source.tree):
        if names_module(module, name, THREADS):
            yield line, f"threads belong in {' and '.join((*MAY_THREAD, MAY_THREAD_IN))}"


def recipes_below_flow(source: Any) -> Found:
    if source.path.startswith(SEES_RECIPE):
        return
    for line, module, name in imports(source.tree, package_of(source.path)):
        whole = (module, name) in {("stillroom.recipe", ""), ("stillroom", "recipe")}
        if whole or (name in ("Recipe", "*") and module in ("stillroom", "stillroom.recipe")):
            yield line, "below flow nobody sees a Recipe; import the section, such as Training"


def dynamic_imports(source: Any) -> Found:
    if source.path in ("kinds.py", "service/data/redaction.py"):  # a kind's class; a function that the operator names
        return
    for line, module, name in imports(source.tree):
        if (module == "importlib" and not name) or names_module(module, name, LOADERS):
            yield line, f"{module}.{name}: kinds.find is the only dynamic import"
    for node in ast.walk(source.tree):
        called = dotted(node.func) if isinstance(node, ast.Call) else ""
        if called == "__import__" or called.endswith((".spec_from_file_location", ".exec_module", ".load_module")):
            yield node.lineno, f"{called}: kinds.find is the only dynamic import"  # type: ignore[attr-defined]


def unsafe_loading(source: Any) -> Found:
    for line, module, name in imports(source.tree):
        if names_module(module, name, PICKLERS | {"torch.load", "torch.save"}):
            yield line, f"{module} {name}: safetensors and JSON only"
    for node in ast.walk(source.tree):
        called = dotted(node) if isinstance(node, ast.Attribute) else ""
        if called in ("torch.load", "torch.save") or called.endswith((".read_pickle", ".to_pickle")):
            yield node.lineno, f"{called}: safetensors and JSON only"  # type: ignore[attr-defined]
        if isinstance(node, ast.keyword):
            on = not (isinstance(node.value, ast.Constant) and node.value.value is False)
            if node.arg in ("trust_remote_code", "weights_only") or (node.arg in ("allow_pickle", "shell") and on):
                yield node.value.lineno, f"{node.arg}= lets data run code"
        if isinstance(node, ast.Constant) and node.value in ("trust_remote_code", "weights_only"):
            yield node.lineno, f"{node.value!r} lets data run code"


def hidden_errors(source: Any) -> Found:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield node.lineno, "a bare except"
            elif all(isinstance(step, ast.Pass) or _is_ellipsis(step) for step in node.body):
                yield node.lineno, "an error swallowed; contextlib.suppress(THE_ERROR) says that it is meant"
        if isinstance(node, ast.Call) and dotted(node.func).endswith("suppress"):  # noqa: SIM102
            if {"Exception", "BaseException"} & {dotted(argument) for argument in node.args}:
                yield node.lineno, "every error suppressed"


def _is_ellipsis(step: ast.stmt) -> bool:
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) and step.value.value is ...


def unitless(source: Any) -> Found:
    """A number whose name says time, money or memory says its unit too: latency_ms, cost_usd."""
    named: list[tuple[int, str, ast.AST | None]] = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.AnnAssign):
            named.append((node.lineno, dotted(node.target), node.annotation))
        if isinstance(node, ast.arg):
            named.append((node.lineno, node.arg, node.annotation))
    for line, name, annotation in named:
        words = set(name.split(".")[-1].split("_"))
        number = annotation is not None and re.search(r"\b(int|float)\b", ast.unparse(annotation))
        if number and words & QUANTITIES and not words & UNITS:
            yield line, f"{name} does not say its unit"


def stray_libraries(source: Any) -> Found:
    for line, module, name in imports(source.tree):
        for library, home in ONLY_IN.items():
            if names_module(module, name, {library}) and not source.path.startswith(home):
                yield line, f"{library} is imported only in {home}"


def busy_packages(source: Any) -> Found:
    if not source.path.endswith("/__init__.py"):
        return
    if len(source.tree.body) != 1 or ast.get_docstring(source.tree) is None:
        yield 1, "a package's __init__ holds its docstring and nothing else"
    if len(source.text.splitlines()) > PACKAGE_LINES:
        yield 1, f"more than {PACKAGE_LINES} lines"


FAULTS: dict[Callable[[Any], Found], list[tuple[str, str]]] = {
    long_files: [("flow.py", "x = 1\n" * 401)],
    long_functions: [("flow.py", "def f():\n" + "    x = 1\n" * 60)],
    vague_names: [("utils.py", ""), ("training/loss_helpers.py", ""), ("core/loop.py", "")],
    asynchronous: [
        ("flow.py", "async def f(): pass"),
        ("flow.py", "import asyncio"),
        ("flow.py", "from anyio import run"),
    ],
    threads: [("flow.py", "import threading"), ("flow.py", "from concurrent.futures import ThreadPoolExecutor")]
    + [
        ("training/loop.py", "from concurrent import futures"),
        ("flow.py", "from multiprocessing.pool import ThreadPool"),
    ],
    recipes_below_flow: [
        ("training/loop.py", "from stillroom.recipe import Recipe"),
        ("report/page.py", "import stillroom.recipe"),
    ]
    + [("report/page.py", "from stillroom import Recipe"), ("training/loop.py", "from ..recipe import Recipe")]
    + [
        ("report/page.py", "if TYPE_CHECKING:\n    from stillroom.recipe import Recipe"),
        ("rows.py", "from . import recipe"),
    ],
    dynamic_imports: [("flow.py", "import importlib"), ("flow.py", "from importlib import import_module")]
    + [("flow.py", "__import__('torch')"), ("flow.py", "import runpy")]
    + [("flow.py", "from importlib import util\nutil.spec_from_file_location('a', 'b')")],
    unsafe_loading: [("flow.py", "import pickle"), ("flow.py", "torch.load(p)"), ("flow.py", "from torch import load")]
    + [("flow.py", "np.load(p, allow_pickle=True)"), ("flow.py", "load(p, trust_remote_code=False)")]
    + [
        ("flow.py", "run(c, shell=True)"),
        ("flow.py", "options = {'weights_only': True}"),
        ("flow.py", "pd.read_pickle(p)"),
    ],
    hidden_errors: [
        ("flow.py", "try:\n    f()\nexcept:\n    raise"),
        ("flow.py", "try:\n    f()\nexcept OSError:\n    pass"),
    ]
    + [("flow.py", "with contextlib.suppress(Exception):\n    f()"), ("flow.py", "try:\n    f()\nexcept E:\n    ...")],
    unitless: [("flow.py", "class A:\n    latency: float"), ("flow.py", "def f(timeout: int | None): ...")],
    stray_libraries: [("flow.py", "import ray"), ("flow.py", "from fastapi.responses import Response")],
    busy_packages: [("models/__init__.py", "from stillroom.models.mlp import Mlp"), ("models/__init__.py", "")]
    + [("models/__init__.py", '"""' + "word\n" * 13 + '"""\n')],
}
FINE = '''
"""What stands here breaks no rule."""
import importlib.metadata
import numpy as np
from importlib.resources import files
from stillroom.recipe import Evaluation, Training
def f(latency_ms_p50: float, price: str, minutes: float) -> None:
    """A docstring."""
    np.load("a.npy", allow_pickle=False)
    model.eval()
    subprocess.run(["ls"], shell=False)
    with contextlib.suppress(FileNotFoundError):
        remove()
    try:
        f()
    except OSError as error:
        raise RunError("what") from error
'''


@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_rule(rule: Callable[[Any], Found], stillroom_sources: list[Any]) -> None:
    broken = [
        f"src/stillroom/{source.path}:{line}: {why}" for source in stillroom_sources for line, why in rule(source)
    ]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    "rule", [long_files, long_functions, vague_names, hidden_errors], ids=lambda rule: rule.__name__
)
def test_benchmarks_and_docs_keep_it_too(rule: Callable[[Any], Found], other_sources: list[Any]) -> None:
    broken = [f"{source.path}:{line}: {why}" for source in other_sources for line, why in rule(source)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: rule.__name__)
def test_the_rule_sees_a_planted_fault(rule: Callable[[Any], Found], source_of: Any) -> None:
    for path, text in FAULTS[rule]:
        assert list(rule(source_of.of(path, text))), f"{rule.__name__} does not see {text[:80]!r} in {path}"
    assert not list(rule(source_of.of("training/loop.py", FINE)))


def test_what_is_allowed_in_its_place(source_of: Any) -> None:
    for rule, path, text in [
        (asynchronous, "service/app.py", "async def f(): pass"),
        (threads, "teachers/api_calls.py", "import threading"),
        (threads, "service/students/shelf.py", "import threading"),
        (threads, "training/batches.py", "from concurrent.futures import ThreadPoolExecutor"),
        (recipes_below_flow, "flow.py", "from stillroom.recipe import Recipe"),
        (recipes_below_flow, "service/jobs/jobs.py", "from stillroom.recipe import Recipe"),
        (dynamic_imports, "kinds.py", "import importlib"),
        (stray_libraries, "cluster/stages.py", "import ray"),
        (busy_packages, "models/__init__.py", '"""Networks: load, save, forward."""\n'),
    ]:
        assert not list(rule(source_of.of(path, text))), f"{rule.__name__} refuses {text!r} in {path}"


def test_at_most_eight_public_names() -> None:
    import stillroom

    assert len(stillroom.__all__) == len(set(stillroom.__all__)) <= PUBLIC_NAMES
    absent = [name for name in stillroom.__all__ if getattr(stillroom, name, None) is None]
    assert not absent, f"stillroom.__all__ names what is not there: {absent}"
