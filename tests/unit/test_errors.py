"""The tree in the docstring of `lifecycle.errors` is complete and true."""

import inspect
import re

import pytest

from lifecycle import errors

_LINE = re.compile(r"^    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<also>\w+)\))?(?:\s|$)")


def drawn_tree() -> dict[str, set[str]]:
    """Return each class the docstring draws, with the names of its bases as drawn."""
    tree: dict[str, set[str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := _LINE.match(line):
            depth = len(match["branch"]) // 4
            assert depth <= len(path), f"{match['name']} hangs from nothing"
            del path[depth:]
            tree[match["name"]] = {path[-1] if path else "Exception"} | ({match["also"]} if match["also"] else set())
            path.append(match["name"])
    return tree


def real_tree() -> dict[str, set[str]]:
    """Return each exception the module defines, with the names of its bases."""
    return {
        name: {base.__name__ for base in found.__bases__}
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, BaseException) and found.__module__ == errors.__name__
    }


def test_the_drawn_tree_is_the_real_one() -> None:
    """Every error is drawn once, below its base, with the built-in it also is."""
    assert drawn_tree() == real_tree()


def test_there_is_one_root() -> None:
    """`except LifecycleError` catches every error."""
    assert all(issubclass(getattr(errors, name), errors.LifecycleError) for name in real_tree())


@pytest.mark.parametrize("name", sorted(real_tree()))
def test_every_error_says_what_it_means(name: str) -> None:
    """Each class has a docstring of its own."""
    assert vars(getattr(errors, name))["__doc__"]


def test_the_message_of_a_configuration_error_names_file_and_key() -> None:
    """Who reads the message knows which line to change."""
    error = errors.ConfigError("limits.page_size", "must be at least 1", source="config.yaml")
    assert str(error) == "config.yaml: limits.page_size: must be at least 1"
