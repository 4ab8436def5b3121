"""Imports point one way: lower layers never import higher ones, and the control plane never loads torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import charter

ROOT = Path(charter.__file__).parent
BASE = {"errors", "records", "suggest", "safe_text", "phrases", "source"}
TOOLS = BASE | {"store", "yaml_io", "sources", "config", "statistics", "regression", "progress"}
LOW = TOOLS | {"constitution", "objectives", "data", "run_file"}
MODELS = LOW | {"models"}
LABELERS = MODELS | {"labelers"}
TRAINING = LABELERS | {"training"}
STAGES = TRAINING | {"stages", "summary"}
MAY_IMPORT = {
    "errors": set(),
    "source": set(),
    "suggest": set(),
    "safe_text": set(),
    "phrases": set(),
    "records": {"errors"},
    "config": BASE,
    "statistics": BASE,
    "regression": BASE | {"statistics"},
    "progress": BASE,
    "sources": BASE,
    "store": BASE,
    "yaml_io": BASE | {"store"},
    "run_file": TOOLS | {"constitution"},
    "constitution": TOOLS,
    "objectives": BASE,
    "data": TOOLS,
    "models": LOW,
    "labelers": MODELS,
    "training": LABELERS,
    "stages": TRAINING | {"summary"},
    "summary": TOOLS,
    "verification": TOOLS | {"constitution"},
    "tracking": {"errors", "records", "store"},
    "pipeline": STAGES | {"tracking", "memory", "beginning"},
    "beginning": STAGES | {"outlook"},
    "outlook": STAGES | {"pipeline", "plan", "watch"},
    "worker": STAGES | {"pipeline"},
    "plan": STAGES | {"memory"},  # it runs the stages' own functions on a few rows
    "doctor": {"store", "doctor_run"},
    "doctor_run": TOOLS | {"run_file", "doctor"},
    "api": STAGES | {"pipeline", "audit"},
    "chat": MODELS,
    "watch": TOOLS,
    "audit": LABELERS,  # never stages, training: a buggy stage can't vouch for itself
    "report": LOW | {"audit", "summary", "verification"},
    "memory": TOOLS,
    "compare": TOOLS,
    "export": LOW,
    "rating": LOW,
    "village": STAGES | {"pipeline"},
    "__main__": {"cli"},
    "cli": STAGES
    | set("verification pipeline plan doctor chat watch audit compare export report rating village memory".split()),
}
FILES = sorted(ROOT.rglob("*.py"))
TORCH_FREE = "api chat watch doctor doctor_run verification report cli store constitution data audit compare export rating memory".split()  # nothing heavy before it is needed
HEAVY = {"torch", "transformers", "safetensors", "tokenizers"}


def _layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "charter":  # from charter import x
                yield from (f"charter.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _own_layers(path: Path) -> set[str]:
    names = (name.split(".") for name in _imports(ast.walk(ast.parse(path.read_text()))))
    found = {parts[1] for parts in names if parts[0] == "charter" and len(parts) > 1}
    return {layer for layer in found if (ROOT / layer).is_dir() or (ROOT / f"{layer}.py").is_file()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    layer = _layer(path)
    if layer == "__init__":
        assert _own_layers(path) == set()
        return
    assert layer in MAY_IMPORT, f"say in this test what {layer} may import"
    assert _own_layers(path) - {layer} <= MAY_IMPORT[layer]


@pytest.mark.parametrize(
    "path", [path for path in FILES if _layer(path) in TORCH_FREE], ids=lambda path: str(path.relative_to(ROOT))
)
def test_nothing_heavy_at_module_level(path):
    names = {name.split(".")[0] for name in _imports(iter(ast.parse(path.read_text()).body))}
    assert names & HEAVY == set()


def test_control_plane_is_torch_free():
    modules = "charter.cli.main, charter.run_file, charter.constitution.importers, charter.data.preferences, charter.store.folder"
    code = f"import sys, {modules}; loaded = {HEAVY!r} & sys.modules.keys(); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_loads_little():
    code = (
        "import sys; sys.argv = ['charter', '--help']\n"
        "from charter.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "loaded = {'torch', 'pydantic', 'ruamel.yaml', 'rich', 'numpy', 'jinja2'} & sys.modules.keys()\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if _layer(path) not in ("village", "cli")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_the_village_names_the_village(path):
    code = ast.unparse(_without_docstrings(ast.parse(path.read_text())))
    assert "village" not in code.casefold()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0] = ast.Pass()
    return tree


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes_and_header(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 400, "a module has at most 400 lines"
    assert not text.strip() or ast.get_docstring(tree), "a module begins with what it is for"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None and node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_no_pickle_and_no_remote_code():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert called not in ("pickle.load", "pickle.loads", "torch.save"), path
                assert called != "torch.load" or keywords.get("weights_only") == "True", path
                if called.endswith(".from_pretrained") and called.startswith("Auto"):
                    assert keywords.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
