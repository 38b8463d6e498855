"""Brings an ONNX graph of any opset to OPSET.

An older graph is converted by onnx's version converter. A newer graph is converted operator by operator: most operators
that changed since OPSET only accept more dtypes and are otherwise the same; a new operator is replaced by onnx's
definition of it by older operators. The caller must check that the result computes the same: see toolkit.import_model.
"""

from collections.abc import Iterator

import onnx
import onnx.inliner
from onnx import version_converter

from backends.errors import one_line
from graphs.onnx.file import OPSET

# Operators that changed their meaning but not their form: scale and bias had a value a group, and now one a channel.
_REDEFINED = frozenset({"GroupNormalization"})
_ALIAS = "ai.onnx"  # another name of the default domain, whose name is empty


class NotOurOpset(Exception):
    """Raised for a graph that cannot be brought to OPSET.

    The message names the node and operator where one is the cause.
    """


def to_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in OPSET. The given model may be changed.

    Functions of the model must be inlined before. Raises NotOurOpset if the model cannot be brought to OPSET.
    """
    for named in (*model.opset_import, *nodes(model.graph)):
        named.domain = "" if named.domain == _ALIAS else named.domain
    version = next((entry.version for entry in model.opset_import if not entry.domain), None)
    newest = onnx.defs.onnx_opset_version()
    if version is not None and version > newest:
        raise NotOurOpset(f"it is newer than {newest}, the newest that this onnx knows; export it at {OPSET}")
    model = _without_previews(model)
    if version is None or version == OPSET:
        return model
    return _from_older(model) if version < OPSET else _from_newer(model, version)


def _from_older(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter's errors share no base class
        raise NotOurOpset(f"{_reason(error)}; export it at {OPSET}") from error


def _from_newer(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    while changed := _to_define(model.graph, version):
        undefined = next((node for node in changed if not _is_defined(node, version)), None)
        if undefined is not None:
            raise NotOurOpset(
                f"{undefined.name or undefined.output[0]!r} ({undefined.op_type}) is not in {OPSET}, and onnx does not "
                "define it by older operators; export the model without it"
            )
        model = _defined(model, {("", node.op_type) for node in changed})
    for node in nodes(model.graph):
        if not node.domain and (older := _schema(node, OPSET)) is not None:
            kept = [attribute for attribute in node.attribute if attribute.name in older.attributes]
            del node.attribute[:]
            node.attribute.extend(kept)  # a removed attribute has its default, by which the node means the same
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = OPSET
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # as in _from_older
        raise NotOurOpset(f"{_reason(error)}; export it at {OPSET}") from error
    return model


def _to_define(graph: onnx.GraphProto, version: int) -> list[onnx.NodeProto]:
    """Return the nodes whose operator OPSET does not have, or not with their inputs, outputs and attributes."""
    return [node for node in nodes(graph) if not node.domain and not _is_in_ours(node, version)]


def _is_in_ours(node: onnx.NodeProto, version: int) -> bool:
    newer, ours = _schema(node, version), _schema(node, OPSET)
    if newer is None or newer.since_version <= OPSET:
        return True
    if ours is None or node.op_type in _REDEFINED:
        return False
    return (
        len(node.input) <= ours.max_input
        and len(node.output) <= ours.max_output
        and all(a.name in ours.attributes or _is_default(a, newer) for a in node.attribute)
    )


def _is_default(attribute: onnx.AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    known = schema.attributes.get(attribute.name)
    if known is None or not known.default_value.name:
        return False
    return bool(onnx.helper.get_attribute_value(attribute) == onnx.helper.get_attribute_value(known.default_value))


def _is_defined(node: onnx.NodeProto, version: int) -> bool:
    schema = _schema(node, version)
    # getattr, because onnx's type information does not list these properties.
    how = ("has_function", "has_context_dependent_function")
    return schema is not None and any(getattr(schema, name) for name in how)


def _schema(node: onnx.NodeProto, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None


def _without_previews(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators of onnx's preview domains, which no runtime has, by onnx's definitions where it has any."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    previews = {
        (node.domain, node.op_type)
        for node in nodes(model.graph)
        if node.domain and _is_defined(node, versions.get(node.domain, 1))
    }
    return _defined(model, previews) if previews else model


def _defined(model: onnx.ModelProto, operators: set[tuple[str, str]]) -> onnx.ModelProto:
    """Return the model with the nodes of these (domain, operator) pairs replaced by onnx's definitions of them."""
    before = model.SerializeToString()
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in nodes(model.graph):
        if (node.domain, node.op_type) in operators:
            _state_defaults(node, versions[node.domain])
    try:
        model = onnx.inliner.inline_selected_functions(model, sorted(operators), inline_schema_functions=True)
    except Exception as error:  # as in _from_older
        names = " and ".join(sorted(operator for _, operator in operators))
        raise NotOurOpset(f"onnx cannot define {names} as used here: {_reason(error)}; export it at {OPSET}") from error
    if model.SerializeToString() == before:
        names = " and ".join(sorted(operator for _, operator in operators))
        raise NotOurOpset(f"onnx has no definition of {names} as it is used here; export it at {OPSET}")
    return model


def _state_defaults(node: onnx.NodeProto, version: int) -> None:
    """State the defaults of attributes that a node leaves out: onnx's inliner would not fill them in."""
    schema = _schema(node, version)
    assert schema is not None  # it has a definition
    stated = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in stated and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _reason(error: Exception) -> str:
    """Return the message of an error without the place in onnx's source that precedes it."""
    return one_line(error).rpartition(" failed: ")[2]


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, also those inside the branches of other nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)
