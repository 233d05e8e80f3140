"""Type checkers find ringpost's types, and those of its native half."""

from __future__ import annotations

import ast
import inspect
from importlib.resources import files

import pytest

from ringpost import _binding
from ringpost._binding import contract

COMPILED = {"ringpost._binding": "_core", "ringpost._binding._cffi": "_native"}


def parsed() -> ast.Module:
    return ast.parse(files("ringpost._binding").joinpath("_core.pyi").read_text())


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    named = {node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return named | {node.target.id: node for node in body if isinstance(node, ast.AnnAssign)}


def parameters(node: ast.FunctionDef) -> list[tuple[str, bool]]:
    """Names, and which of them have a default."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    without = len(plain) - len(arguments.defaults)
    found = [(each.arg, number >= without) for number, each in enumerate(plain)]
    return found + [
        (each.arg, default is not None)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]


def parameters_of_contract(owner: type, name: str) -> list[tuple[str, bool]]:
    signature = inspect.signature(getattr(owner, name))
    return [(each.name, each.default is not each.empty) for each in signature.parameters.values()]


def test_the_package_is_typed() -> None:
    assert files("ringpost").joinpath("py.typed").is_file()


@pytest.mark.parametrize("package", COMPILED)
def test_each_compiled_module_has_a_stub(package: str) -> None:
    stubs = {path.name for path in files(package).iterdir() if path.name.endswith(".pyi")}
    assert stubs == {f"{COMPILED[package]}.pyi"}


def test_the_stub_has_every_name_of_the_contract() -> None:
    assert set(names_in(parsed().body)) == set(contract.NAMES)


def test_the_stub_says_nothing_that_is_not_there() -> None:
    for name in names_in(parsed().body):
        assert hasattr(_binding.binding, name)
    for name in names_in(names_in(parsed().body)["Log"].body):
        assert hasattr(_binding.binding.Log, name)


def test_the_log_is_that_of_the_contract() -> None:
    protocols = (contract.Log, contract.NativeLog)
    wanted = {name for each in protocols for name in vars(each) if not name.startswith("_")} | set(
        {**contract.Log.__annotations__, **contract.NativeLog.__annotations__}
    )
    told = set(names_in(names_in(parsed().body)["Log"].body)) - {"__init__"}
    assert told == wanted


@pytest.mark.parametrize("name", sorted(name for name in vars(contract.Log) if not name.startswith("_")))
def test_methods_take_what_the_contract_says(name: str) -> None:
    node = names_in(names_in(parsed().body)["Log"].body)[name]
    if isinstance(vars(contract.Log)[name], property):
        assert [decorator.id for decorator in node.decorator_list] == ["property"]
    else:
        assert parameters(node) == parameters_of_contract(contract.Log, name)


@pytest.mark.parametrize("name", sorted(name for name in vars(contract.Binding) if not name.startswith("_")))
def test_functions_take_what_the_contract_says(name: str) -> None:
    node = names_in(parsed().body)[name]
    assert [("self", False), *parameters(node)] == parameters_of_contract(contract.Binding, name)


@pytest.mark.parametrize(
    "name", ["Log", "NativeLog", "Group", "NativeGroup", "Watch", "Loan", "Delivery", "Stored"]
)
def test_the_cffi_binding_takes_what_the_contract_says(name: str) -> None:
    protocol = getattr(contract, name)
    made = getattr(_binding.load("cffi"), name.removeprefix("Native"))
    for method in vars(protocol):
        if not method.startswith("_") and inspect.isfunction(vars(protocol)[method]):
            wanted = [each for each, _ in parameters_of_contract(protocol, method)]
            assert [each for each, _ in parameters_of_contract(made, method)] == wanted, method


def test_everything_is_annotated() -> None:
    for node in ast.walk(parsed()):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, node.name
            arguments = [*node.args.args, *node.args.kwonlyargs]
            assert all(each.annotation for each in arguments if each.arg not in ("self", "cls")), node.name
