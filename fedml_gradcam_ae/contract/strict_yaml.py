"""A YAML reader that refuses duplicate keys, and aliases that stand for too many values."""

from __future__ import annotations

from typing import Any

import yaml
from typing_extensions import override

MOST_VALUES = 100_000  # values in one text, with all aliases written out
DEEPEST = 50  # levels of nesting


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that equal keys are an error: PyYAML silently takes the last of them."""

    level = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # PyYAML would go on to Python's own limit, and look 1,024 characters ahead on each level.
        if self.level == DEEPEST:
            raise RecursionError
        self.level += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.level -= 1

    @override
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            # A merge key (`<<`) has no value that could be constructed, so its text is compared.
            merges = key.tag == "tag:yaml.org,2002:merge"
            value = key.value if merges else self.construct_object(key)
            line = key.start_mark.line + 1
            if value in first:
                raise yaml.YAMLError(f"line {line}: the key {key.value!r} stands in line {first[value]} already")
            first[value] = line
        return node


def load(text: str) -> Any:
    r"""Return the value that a YAML text holds.

    Args:
        text: one document. Merge keys (`<<`) and aliases work.

    Raises:
        yaml.YAMLError: if the text is no YAML, a mapping has a key twice, or the text with its aliases written out has
            more than 100,000 values or 50 levels.

    Example:
        >>> load("a: {b: 1}")
        {'a': {'b': 1}}
        >>> load("a: 1\na: 2")
        Traceback (most recent call last):
            ...
        yaml.error.YAMLError: line 2: the key 'a' stands in line 1 already
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
    """Return how many values a node stands for with every alias written out; each node is counted once."""
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
