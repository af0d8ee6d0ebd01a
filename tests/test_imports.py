"""Imports go one way, heavy packages are imported late, and nobody names frameworks but the registry."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from frameworks import FRAMEWORKS

ROOT = Path(__file__).parent.parent

ORDER = (
    {"harness.ops_activations", "harness.ops_sequences", "harness.ops_shapes"},
    {"harness.ops"},
    {"harness.calls", "harness.case", "harness.recipe", "harness.widening"},
    {"harness.terms", "harness.objectives", "harness.schedules", "harness.rules", "harness.ops_standard"},
    {"harness.fitting"},
    {"harness.objectives_standard", "harness.editing", "harness.finding"},
    {"harness.cause"},
    {"harness.solving"},
    {"harness.causes_forward", "harness.causes_training"},
    {"harness.causes"},
    {"harness.report"},
    {"harness.conventions", "harness.layout", "harness.folder", "harness.memory", "frameworks.protocol"},
    {"reference", "frameworks", "harness.data"},
    {"harness.running", "harness.views"},
    {"harness.comparing", "harness.evidence", "harness.activations"},
    {"harness.judging", "harness.mismatch", "harness.pair", "harness.structure"},
    {"harness.hypotheses", "harness.checking", "harness.describing", "harness.alternatives", "harness.aligning"},
    {"harness.explaining", "harness.feeding", "harness.linking"},
    {"harness.orders"},
    {"harness.watching", "harness.loose"},
    {"harness.pairing"},
    {"harness.following", "harness.cost", "harness.comparison", "harness.keeping"},
    {"harness.mapping"},
    {"harness.elsewhere"},
    {"harness.narrow"},
    {"harness.owning"},
    {"harness.remapping", "harness.stability", "harness.blocks", "harness.returned"},
    {"harness.planning", "harness.diverging", "harness.points", "harness.questions", "harness.rows"},
    {"harness.probing_losses", "harness.answering"},
    {"harness.probing"},
    {"harness.diagnosing"},
    {"harness.tracking"},
    {"harness.summary", "harness.convergence", "harness.recording", "harness.cases"},
    {"harness.investigating", "harness.porting", "harness.gradients"},
    {"harness.explanation", "harness.terminal", "harness.contrasting"},
    {"harness.trace"},
    {"harness.asserting"},
    {"harness.plugin"},
    {"harness.commanding"},
    {"harness.cli_causes", "harness.cli_gradients", "harness.cli_traces"},
    {"harness.cli"},
)
"""A module imports only from its own level (reference and frameworks never from each other) or one before it."""


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("harness", "reference", "frameworks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def level(module: str) -> int:
    for i, names in enumerate(ORDER):
        if module in names:
            return i
    parent = module.rpartition(".")[0]
    assert parent, f"{module} has no place in ORDER"
    return level(parent)


def imported(source: str) -> set[str]:
    """Project modules that a source imports anywhere, type checking apart."""
    tree = ast.parse(source)
    checking = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(inner) for node in checking for inner in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" if node.module in PACKAGES else node.module for a in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


PACKAGES = {"harness", "reference", "frameworks"}
FILES = {name: path for name, path in modules()}


def broken(module: str, imports: set[str]) -> list[str]:
    package = module.split(".")[0]
    wrong = [name for name in imports if level(name) > level(module)]
    if package in ("reference", "frameworks"):
        other = {"reference": "frameworks", "frameworks": "reference"}[package]
        wrong += [name for name in imports if name.split(".")[0] == other]
    if module.startswith("harness.report"):
        wrong += [name for name in imports if not name.startswith("harness.report")]
    return wrong


@pytest.mark.parametrize("module", [name for name in FILES if name != "harness"])
def test_imports_go_one_way(module: str) -> None:
    imports = {name if name in FILES else name.rpartition(".")[0] for name in imported(FILES[module].read_text())}
    assert broken(module, imports) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reference.layers", "from frameworks import adapter"),
        ("frameworks.jax_native", "import reference.training"),
        ("harness.running", "from harness.judging import K"),
        ("harness.report.page", "from harness.case import Case"),
        ("harness.case", "def f():\n    from harness.cli import main"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    imports = {name if name in FILES else name.rpartition(".")[0] for name in imported(source)}
    assert broken(module, imports) != []


def test_no_framework_is_named_outside_the_registry() -> None:
    """An adapter may name its own packages; nothing else lists the registry's names a second time."""
    for module, path in FILES.items():
        if not module.startswith("frameworks"):
            constants = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            named = set(FRAMEWORKS) & {c for c in constants if isinstance(c, str)}
            assert len(named) < 2, f"{module} names {named}"


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split())


HEAVY = {"torch", "tensorflow", "keras", "jax", "optax", "pandas", "pyarrow", "matplotlib", "sklearn", "pydantic"}


def test_import_harness_is_light() -> None:
    assert not loaded_after("import harness; harness.Case; harness.CASES") & HEAVY


def test_help_imports_neither_frameworks_nor_numpy() -> None:
    code = "from click.testing import CliRunner; from harness.cli import main; CliRunner().invoke(main, ['--help'])"
    assert not loaded_after(code) & (HEAVY | {"numpy", "rich.console"})


def test_listing_imports_no_framework() -> None:
    code = "from click.testing import CliRunner; from harness.cli import main; CliRunner().invoke(main, ['list'])"
    assert not loaded_after(code) & (HEAVY - {"pydantic"})


def test_listing_causes_imports_no_framework() -> None:
    code = "from click.testing import CliRunner; from harness.cli import main; CliRunner().invoke(main, ['causes'])"
    assert not loaded_after(code) & HEAVY


def test_public_names_load_and_are_few() -> None:
    import harness

    assert len(dir(harness)) <= 15
    assert all(getattr(harness, name) is not None for name in dir(harness))
    with pytest.raises(AttributeError, match="investigate"):
        _ = harness.no_such_name
