"""What a message and its fields declare, read from the descriptors of generated code.

Descriptors that come as a set are read by descriptors.py.
"""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor


def option(of: Descriptor | FieldDescriptor | OneofDescriptor, extension: Any) -> Any:
    """Return what is declared by an option, such as constraints; the option's default if nothing is."""
    return of.GetOptions().Extensions[extension]


def is_map(field: FieldDescriptor) -> bool:
    """Tell whether a field is a map, which a descriptor has as a list of entries."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def value_of(field: FieldDescriptor) -> FieldDescriptor:
    """Return the field that holds the values of a map; another field is its own."""
    if not is_map(field):
        return field
    assert field.message_type is not None
    return field.message_type.fields_by_name["value"]
