"""YAML without silent surprises: no key twice, and no more values than a file could hold when written out."""

from __future__ import annotations

from typing import Any

import yaml
from typing_extensions import override

MOST_VALUES = 100_000
DEEPEST = 50


class _Loader(yaml.SafeLoader):
    """PyYAML's, which takes the last of several equal keys without a word."""

    @override
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            # `<<` is no value, so its text stands for it.
            merges = key.tag == "tag:yaml.org,2002:merge"
            value = key.value if merges else self.construct_object(key)
            line = key.start_mark.line + 1
            if value in first:
                raise yaml.YAMLError(f"line {line}: the key {key.value!r} stands in line {first[value]} already")
            first[value] = line
        return node


def load(text: str) -> Any:
    """The value that a YAML text holds.

    Args:
        text: one document. Merge keys (`<<`) and aliases work.

    Raises:
        yaml.YAMLError: if it is no YAML, a mapping has a key twice, or aliases would write out to more than
            100,000 values or 50 levels.

    Example:
        >>> load("a: {b: 1}")
        {'a': {'b': 1}}
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}, DEEPEST) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep") from None
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[int, int], levels: int) -> int:
    """How many values a node stands for with every alias written out; each node is counted once."""
    if levels == 0:
        raise RecursionError
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(_written_out(part, known, levels - 1) for part in inner)
    return known[id(node)]
