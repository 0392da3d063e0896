"""Finds private names of Ray in a module's source, without importing it or Ray."""

import ast
import re
from collections.abc import Iterator

# Rooms of Ray's package that it does not document, beside those whose name begins with an underscore.
CLOSED = (
    *("ray.autoscaler", "ray.core.generated", "ray.dashboard", "ray.experimental.internal_kv", "ray.scripts"),
    *("ray.train.v2", "ray.tune.execution", "ray.tune.schedulers.pb2_utils"),
)
# Attributes of Ray's objects that it does not document and that no underscore marks.
CLOSED_ATTRIBUTES = {"core_worker", "execution_context", "global_worker", "run_metadata", "temporary_state"}
DOCUMENTED_VARIABLES = {
    *("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"),
    "RAY_JOB_STOP_WAIT_TIME_S",
}
IN_TEXT = re.compile(r"ray\._|ray\.scripts|__ray_|ray_current_cluster|\"?_internal\b|/api/v0/")


def private_names(source: str) -> list[str]:
    """Each private name of Ray that the source imports, reaches, overrides, patches or spells, with its line."""
    tree = ast.parse(source)
    return [f"{line}: {name}" for line, name in sorted(_found(tree))]


def _found(tree: ast.Module) -> Iterator[tuple[int, str]]:
    ours = _names_of_ray(tree)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, one.name) for one in names if _is_closed(one.name))
            case ast.ImportFrom(module=str(module), names=names):
                whole = [f"{module}.{one.name}" for one in names]
                yield from ((node.lineno, name) for name in whole if _is_closed(name))
            case ast.Attribute(attr=attr):
                root, *path = _chain(node)
                if attr in CLOSED_ATTRIBUTES or attr.startswith("__ray_"):
                    yield node.lineno, attr
                elif root in ours and _is_closed(".".join(("ray", *path))):
                    yield node.lineno, ".".join((root, *path))
            case ast.Call(func=func, keywords=keywords) if _chain(func)[0] in ours:
                yield from ((node.lineno, f"{one.arg}=") for one in keywords if (one.arg or "").startswith("_"))
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                variables = set(re.findall(r"\bRAY_\w+", text)) - DOCUMENTED_VARIABLES
                if variables or IN_TEXT.search(text):
                    yield node.lineno, text


def _names_of_ray(tree: ast.Module) -> set[str]:
    """The names that a module binds to Ray and what it imports from there."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.asname or "ray" for one in node.names if one.name.partition(".")[0] == "ray"}
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "ray":
            found |= {one.asname or one.name for one in node.names}
    return found


def _is_closed(name: str) -> bool:
    parts = name.split(".")
    if parts[0] != "ray":
        return False
    hidden = any(part.startswith("_") and part not in ("__init__", "__version__") for part in parts)
    return hidden or any(name == one or name.startswith(f"{one}.") for one in CLOSED)


def _chain(node: ast.expr) -> list[str]:
    """`["ray", "util", "get"]` of ray.util.get; calls and indexing on the way are looked through."""
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Attribute(value=value, attr=attr):
            return [*_chain(value), attr]
        case ast.Call(func=value) | ast.Subscript(value=value):
            return _chain(value)
    return [""]
