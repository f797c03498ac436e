"""Hostile messages: bytes of the sender's choice, and messages that say what no client of FedML says."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hostile import pickles as p
from hostile.cases import case, heading
from hostile.network import MINE, honest

# What the report names: the decoder's kinds, then the schema's.
BROKEN = "broken|unsupported"
CALL = f"names code|{BROKEN}"
TENSOR = f"bad tensor|bad array|too large|{CALL}"
MEMORY = f"too large|too many objects|too deep|{CALL}"
DEPTH = f"too deep|too large|too many objects|too slow|{BROKEN}"
MAGIC = 0x1950A86A20F9469CFC6C  # that torch's older files begin with
LINES = "\x1b[2J\x1b]0;mine\x07\r\nround 1: test accuracy 0.9999\n"


def message(*outcomes: Any, report: str, **more: Any) -> Callable[..., Any]:
    """Messages that nobody can use: whether the round waits for another upload of the client is the server's choice."""
    return case("message", *(outcomes or ("ignored", "left out")), report=report, **more)


def raw(report: str, *more: Any) -> Callable[..., Any]:
    """Messages whose bytes are refused."""
    return message("ignored", "left out", *more, report=report, undecodable=not more)


heading("bytes that are no message")


@raw(BROKEN)
def no_bytes_at_all() -> bytes:
    """an empty message"""
    return b""


@raw(BROKEN)
def bytes_that_are_no_pickle() -> bytes:
    """bytes that are no pickle"""
    return b"\x80\x04not a pickle"


@raw(BROKEN)
def ten_kb_of_noise() -> bytes:
    """10 kB of noise"""
    return random.Random(0).randbytes(10_000)


@raw(BROKEN)
def a_web_request() -> bytes:
    """a request to a web server"""
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@raw(BROKEN)
def json_text() -> bytes:
    """JSON"""
    return b'{"msg_type": 3, "sender": 6, "receiver": 0}'


@raw(BROKEN)
def a_file_of_torch() -> bytes:
    """a file as torch saves it"""
    file = io.BytesIO()
    torch.save(honest(MINE), file)
    return file.getvalue()


@raw(BROKEN)
def a_truncated_message() -> bytes:
    """a message that ends in the middle"""
    content = p.message()
    return content[: len(content) // 2]


@raw(BROKEN)
def a_message_without_its_last_byte() -> bytes:
    """a message without its last byte"""
    return p.message()[:-1]


@raw(BROKEN, "taken")
def a_message_and_more_bytes() -> bytes:
    """a message with further bytes after its end"""
    return p.message() + bytes(1000)


@raw(BROKEN, "taken")
def two_messages_in_one() -> bytes:
    """two messages in one"""
    return p.message() + p.message()


@raw(BROKEN, "taken")
def the_oldest_protocol() -> bytes:
    """a message in the oldest form of pickles (protocol 0)"""
    from fedml.core.distributed.communication.message import Message

    sent = Message(p.UPLOAD, p.ME, 0)
    sent.add_params("model_params", honest(MINE))
    sent.add_params("num_samples", 20)
    return pickle.dumps(sent, 0)


@raw(BROKEN)
def a_protocol_of_the_future() -> bytes:
    """a pickle of protocol 200"""
    return b"\x80\xc8" + p.message()[2:]


@raw(f"size|largest|bytes|{BROKEN}")
def a_message_far_larger_than_the_model() -> bytes:
    """a message of 8 MB where some kB are right"""
    return p.program(p.value(bytes(8_000_000)))


@raw(f"expected|message|{BROKEN}|{CALL}")
def a_number_in_the_place_of_a_message() -> bytes:
    """a number in the place of a message"""
    return p.program(p.value(1))


@raw(f"expected|message|{BROKEN}|{CALL}")
def a_model_in_the_place_of_a_message() -> bytes:
    """a model in the place of a message"""
    return p.program(p.model())


heading("broken pickles")


@raw(BROKEN)
def more_taken_than_there_is() -> bytes:
    """a pickle that takes more from its stack than there is"""
    return p.program(b"0000")


@raw(BROKEN)
def a_mark_that_is_missing() -> bytes:
    """a tuple whose beginning is missing"""
    return p.program(b"t")


@raw(BROKEN)
def what_was_never_kept() -> bytes:
    """a reference to what was never kept"""
    return p.program(b"j" + struct.pack("<I", 77))


@raw(BROKEN)
def a_number_appended_to() -> bytes:
    """an item appended to a number"""
    return p.program(p.value(1) + p.value(2) + b"a")


@raw(BROKEN)
def a_length_of_2_to_the_63() -> bytes:
    """a text that claims a length of 2^63"""
    return p.program(b"\x8d" + struct.pack("<Q", 2**63) + b"x")


@raw(BROKEN)
def a_negative_length() -> bytes:
    """bytes of a negative length"""
    return p.program(b"T" + struct.pack("<i", -5) + b"x")


@raw(BROKEN)
def a_frame_longer_than_the_message() -> bytes:
    """a frame that is longer than the message"""
    return b"\x80\x04\x95" + struct.pack("<Q", 2**60) + p.message()[2:]


@raw(f"surrogate|text|{BROKEN}|{CALL}")
def text_that_is_no_utf8() -> bytes:
    """text that is no UTF-8"""
    return p.message(note=b"X" + struct.pack("<I", 2) + b"\xff\xfe")


@raw(f"digits|number|integer|{BROKEN}")
def a_number_of_5000_digits_in_text() -> bytes:
    """a number of 5,000 digits, written out"""
    return p.message(num_samples=b"L" + b"9" * 5000 + b"L\n")


@raw(f"integer|large|number|{MEMORY}")
def a_number_of_half_a_megabyte() -> bytes:
    """a number of 500 kB"""
    return p.message(num_samples=b"\x8b" + struct.pack("<i", 500_000) + b"\x7f" * 500_000)


@raw(f"persistent|{BROKEN}|{CALL}")
def a_persistent_id() -> bytes:
    """a reference to an object outside of the pickle"""
    return p.message(model_params=b"Pmine\n")


@raw(f"extension|{BROKEN}|{CALL}")
def an_extension_code() -> bytes:
    """a code from the registry of extensions"""
    return p.message(model_params=b"\x82\x07")


@raw(f"buffer|{BROKEN}|{CALL}")
def a_buffer_outside_of_the_message() -> bytes:
    """a buffer that is not in the message"""
    return b"\x80\x05" + p.message(model_params=b"\x97")[2:]


heading("code to run")


@raw(CALL)
def a_shell_command() -> bytes:
    """a call of a shell command"""
    return p.message(model_params=p.call("posix", "system", p.value("touch the-server-was-mine")))


@raw(CALL)
def a_shell_command_in_an_old_opcode() -> bytes:
    """a shell command by another opcode (INST)"""
    return p.message(model_params=b"(" + p.value("touch the-server-was-mine") + b"iposix\nsystem\n")


@raw(CALL)
def a_shell_command_in_the_place_of_a_message() -> bytes:
    """a shell command in the place of a message"""
    return p.program(p.call("os", "system", p.value("touch the-server-was-mine")))


@raw(CALL)
def a_shell_command_inside_a_tensors_storage() -> bytes:
    """a shell command in the bytes of a tensor's storage"""
    inner = p.program(p.call("os", "system", p.value("touch the-server-was-mine")))
    return p.with_tensor(p.tensor((4,), (1,), storage=p.call("torch.storage", "_load_from_bytes", p.value(inner))))


@raw(f"bad tensor|{CALL}")
def a_shell_command_inside_a_storage_of_the_old_form() -> bytes:
    """a shell command in a storage in torch's older form"""
    saved = io.BytesIO()
    torch.save(torch.zeros(4).untyped_storage(), saved, _use_new_zipfile_serialization=False)
    heads = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True})]
    assert saved.getvalue().startswith(b"".join(heads[:2]))
    inner = b"".join(heads) + p.program(p.call("posix", "system", p.value("touch the-server-was-mine")))
    return p.with_tensor(p.tensor((4,), (1,), storage=p.call("torch.storage", "_load_from_bytes", p.value(inner))))


@raw(CALL)
def code_to_evaluate() -> bytes:
    """Python code"""
    return p.message(model_params=p.call("builtins", "eval", p.value("open('the-server-was-mine', 'w')")))


@raw(CALL)
def an_attribute_of_an_allowed_name() -> bytes:
    """a name reached through an allowed module"""
    return p.message(model_params=p.call("torch", "serialization.os.system", p.value("touch the-server-was-mine")))


@raw(CALL)
def a_name_with_terminal_codes_to_call() -> bytes:
    """a call of a name with line breaks and terminal codes"""
    return p.message(model_params=p.call(f"os{LINES}", f"system{LINES}"))


@raw(CALL)
def a_name_that_is_a_number() -> bytes:
    """a call of a name that is a number"""
    return p.message(model_params=p.value(1) + p.value(2) + b"\x93)R")


@raw(TENSOR)
def an_array_over_foreign_memory() -> bytes:
    """numpy's array constructor with a buffer, an offset and strides of the sender's choice"""
    arguments = [p.value(part) for part in ((1000,), "f8", b"x" * 64, 0, (-4096,))]
    return p.message(model_params=p.call("numpy", "ndarray", *arguments))


@raw(TENSOR)
def an_array_of_made_up_pointers() -> bytes:
    """an array of objects over bytes: made-up pointers"""
    arguments = [p.value(part) for part in ((1,), "O", b"A" * 8)]
    return p.message(num_samples=p.call("numpy", "ndarray", *arguments))


_STATE = p.value((3, "|", None, None, None, -1, -1, 63))
OBJECTS = p.build(p.call("numpy", "dtype", p.value("O8"), p.value(False), p.value(True)), _STATE)


@raw(TENSOR)
def made_up_pointers_from_a_buffer() -> bytes:
    """numpy's `_frombuffer` with made-up pointers"""
    arguments = [p.value(b"A" * 8), OBJECTS, p.value((1,)), p.value("C")]
    return p.message(num_samples=p.call("numpy.core.numeric", "_frombuffer", *arguments))


@raw(TENSOR)
def a_made_up_pointer_as_a_numpy_number() -> bytes:
    """a numpy number that is a made-up pointer"""
    return p.message(num_samples=p.call("numpy.core.multiarray", "scalar", OBJECTS, p.value(b"A" * 8)))


@raw(TENSOR)
def an_array_with_a_state_of_pointers() -> bytes:
    """an empty array that is given a state of objects"""
    empty = p.call("numpy.core.multiarray", "_reconstruct", p.name("numpy", "ndarray"), p.value((0,)), p.value(b"b"))
    state = p.tuple_of(p.value(1), p.value((10**6,)), OBJECTS, p.value(False), p.value(b"A" * 8))
    return p.message(num_samples=p.build(empty, state))


@raw(CALL)
def an_allowed_functions_defaults() -> bytes:
    """a state for an allowed function, which would change its defaults for the whole process"""
    slots = p.tuple_of(b"N", p.dict_of({"__defaults__": p.value((1, 2))}))
    return p.message(model_params=p.build(p.name("torch._utils", "_rebuild_tensor_v2"), slots))


@raw(CALL)
def an_allowed_classs_attributes() -> bytes:
    """a state for an allowed class"""
    slots = p.tuple_of(b"N", p.dict_of({"items": p.value(1)}))
    return p.message(model_params=p.build(p.name("collections", "OrderedDict"), slots))


@raw(CALL)
def the_message_class_itself() -> bytes:
    """a state for the class of FedML's messages, which would change all messages"""
    slots = p.tuple_of(b"N", p.dict_of({"get_type": p.value(1), "get_sender_id": p.value(1)}))
    return p.message(model_params=p.build(p.name(*p.MESSAGE), slots))


@raw(CALL)
def an_encoding_of_the_senders_choice() -> bytes:
    """a call of one of Python's encodings"""
    return p.message(model_params=p.call("_codecs", "encode", p.value("x" * 1000), p.value("punycode")))


@message(report=f"attribute|state|method|type|{CALL}")
def a_message_without_its_methods() -> bytes:
    """a message whose state replaces its methods"""
    methods = ("get_type", "get_sender_id", "get_receiver_id", "get_params", "get")
    return p.message({method: p.value("gone") for method in methods})


@message(report=f"attribute|state|method|type|{CALL}")
def a_message_of_another_class() -> bytes:
    """a message that says to be of another class"""
    return p.message({"__class__": p.name("collections", "OrderedDict")})


heading("small messages that would take much memory")


@raw(MEMORY)
def two_gb_in_31_bytes() -> bytes:
    """31 bytes that become 2 GB"""
    return p.message(model_params=p.call("builtins", "bytearray", p.value(2**31)))


@raw(MEMORY)
def a_set_of_a_billion() -> bytes:
    """a set of a billion numbers"""
    numbers = p.call("builtins", "range", p.value(10**9))
    return p.message(model_params=p.call("builtins", "set", numbers))


@raw(MEMORY)
def a_shape_of_a_billion() -> bytes:
    """a shape with a billion dimensions"""
    return p.message(model_params=p.call("torch", "Size", p.call("builtins", "range", p.value(10**9))))


@raw(MEMORY)
def an_array_of_a_billion_objects() -> bytes:
    """an array of a billion objects"""
    kind = p.name("numpy", "ndarray")
    sizes = [p.value((10**9,)), p.value(b"O")]
    return p.message(model_params=p.call("numpy.core.multiarray", "_reconstruct", kind, *sizes))


@raw(MEMORY)
def an_array_of_empty_numbers() -> bytes:
    """an array of 2^50 numbers of no size"""
    arguments = [p.value((2**50,)), p.value("V0")]
    return p.message(model_params=p.call("numpy", "ndarray", *arguments))


@raw(MEMORY)
def a_far_memo_index() -> bytes:
    """9 bytes that make the memo 2 GB large"""
    return p.program(b"N" + p.long_put(2**28 - 1))


@raw(MEMORY, "taken")
def a_memo_index_beyond_all_bounds() -> bytes:
    """a memo index of 2^32 - 1"""
    return p.message(note=b"N" + p.long_put(2**32 - 1))


@raw(MEMORY)
def a_storage_that_is_a_zip_bomb() -> bytes:
    """a tensor's storage, compressed a thousandfold"""
    file, packed = io.BytesIO(), io.BytesIO()
    torch.save(torch.zeros(8_000_000).untyped_storage(), file)
    with zipfile.ZipFile(file) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.namelist():
            small.writestr(entry, plain.read(entry))
    storage = p.call("torch.storage", "_load_from_bytes", p.value(packed.getvalue()))
    return p.with_tensor(p.tensor((4,), (1,), storage=storage))


@raw(f"objects|budget|many|{BROKEN}", "taken")
def two_hundred_thousand_empty_lists() -> bytes:
    """200,000 empty lists"""
    return p.message(note=p.list_of(*[b"]"] * 200_000))


heading("nesting and keys")


@raw(DEPTH)
def a_key_of_shared_tuples() -> bytes:
    """127 bytes that take 2^60 steps to hash: shared tuples as a key"""
    return p.message(model_params=b"}" + shared_tuples(60) + b"Ns")


@raw(DEPTH)
def a_key_of_tuples_shared_through_the_memo() -> bytes:
    """shared tuples as a key, through the pickle's memo"""
    return p.message(model_params=b"}" + remembered_tuples(60) + b"Ns")


@raw(f"samples|claim|{DEPTH}")
def a_claim_of_shared_tuples() -> bytes:
    """127 bytes that take 2^60 steps to print or compare: shared tuples as a claim"""
    return p.message(num_samples=shared_tuples(60))


@raw(f"samples|claim|{DEPTH}")
def a_claim_of_tuples_shared_through_the_memo() -> bytes:
    """shared tuples as a claim, through the pickle's memo"""
    return p.message(num_samples=remembered_tuples(60))


def remembered_tuples(depth: int) -> bytes:
    return b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(depth))


def shared_tuples(depth: int) -> bytes:
    """Each tuple holds the one before twice."""
    return b")" + b"2\x86" * depth


@raw(DEPTH)
def a_key_a_million_tuples_deep() -> bytes:
    """a tuple a million deep as a key"""
    return p.message(model_params=b"})" + b"\x85" * 1_000_000 + b"Ns")


@raw(f"samples|claim|{DEPTH}")
def a_claim_5000_lists_deep() -> bytes:
    """lists in lists, 5,000 deep, as a claim"""
    return p.message(num_samples=b"]" * 5000 + b"a" * 4999)


@raw(f"mapping|{DEPTH}")
def a_model_5000_lists_deep() -> bytes:
    """lists in lists, 5,000 deep, as a model"""
    return p.message(model_params=b"]" * 5000 + b"a" * 4999)


@raw(f"mapping|missing|{DEPTH}")
def a_model_5000_dictionaries_deep() -> bytes:
    """dictionaries in dictionaries, 5,000 deep, as a model"""
    return p.message(model_params=(b"}" + p.value("x")) * 5000 + b"N" + b"s" * 5000)


@raw(f"key|{DEPTH}|{CALL}")
def a_key_that_is_a_list() -> bytes:
    """a list as a key"""
    return p.message(model_params=b"}]Ns")


@raw(f"key|{DEPTH}|{CALL}")
def a_key_that_is_a_tensor() -> bytes:
    """a tensor as a key"""
    return p.message(model_params=b"}" + p.tensor((4,), (1,)) + b"Ns")


@message(report=f"mapping|missing|{DEPTH}")
def a_model_that_holds_itself() -> bytes:
    """a model that holds itself"""
    return p.message(model_params=b"}q\x00" + p.value("conv.bias") + b"h\x00s")


heading("tensors and arrays that do not fit their data")


@raw(TENSOR)
def a_tensor_beyond_its_storage() -> bytes:
    """a tensor that is larger than its storage: it would read the server's memory"""
    return p.with_tensor(p.tensor((1_000_000,), (1,)))


@raw(TENSOR)
def a_tensor_before_its_storage() -> bytes:
    """a tensor with a negative offset"""
    return p.with_tensor(p.tensor((4,), (1,), offset=-4096))


@raw(TENSOR)
def a_tensor_far_behind_its_storage() -> bytes:
    """a tensor with an offset of 2^62"""
    return p.with_tensor(p.tensor((4,), (1,), offset=2**62))


@raw(TENSOR)
def a_tensor_with_negative_strides() -> bytes:
    """a tensor with negative strides"""
    return p.with_tensor(p.tensor((4,), (-1,)))


@raw(TENSOR)
def a_tensor_with_a_negative_size() -> bytes:
    """a tensor of a negative size"""
    return p.with_tensor(p.tensor((-4,), (1,)))


@raw(TENSOR)
def a_tensor_whose_size_overflows() -> bytes:
    """a tensor whose number of bytes is above 2^64"""
    return p.with_tensor(p.tensor((2**33, 2**33), (0, 0)))


@raw(f"shape|{TENSOR}", "taken")
def a_billion_numbers_from_one() -> bytes:
    """one number, expanded to a billion"""
    return p.with_tensor(p.tensor((10**9,), (0,)))


@raw(TENSOR)
def a_tensor_of_half_numbers() -> bytes:
    """a tensor whose size is no whole number"""
    return p.with_tensor(p.tensor((4.5,), (1,)))


@raw(TENSOR)
def a_tensor_of_text() -> bytes:
    """a tensor whose size is text"""
    return p.with_tensor(p.tensor("4", "1"))


@raw(TENSOR)
def a_tensor_over_text() -> bytes:
    """a tensor whose storage is text"""
    return p.with_tensor(p.tensor((4,), (1,), storage=p.value("storage")))


@raw(TENSOR)
def an_array_of_too_few_bytes() -> bytes:
    """an array of more numbers than there are bytes"""
    array = p.value(np.zeros(4))
    return p.message(model_params=array.replace(p.value((4,)), p.value((400,))))


heading("a wrong type")

KIND = f"type|kind|{CALL}"
SENDER = f"sender|client|federation|{CALL}"
RECEIVER = f"receiver|{CALL}"


@message(report=KIND)
def a_type_that_is_a_list() -> bytes:
    """the type is a list"""
    return p.addressed(kind=p.value([3]))


@message(report=KIND)
def a_type_that_is_a_dictionary() -> bytes:
    """the type is a dictionary"""
    return p.addressed(kind=p.value({3: 3}))


@message(report=KIND)
def a_type_that_is_nothing() -> bytes:
    """the type is nothing (None)"""
    return p.addressed(kind=p.value(None))


@message("ignored", "left out", "taken", report=KIND)
def a_type_in_text() -> bytes:
    """the type is the text "3" """
    return p.addressed(kind=p.value("3"))


@message("ignored", "left out", "taken", report=KIND)
def a_type_with_a_point() -> bytes:
    """the type is 3.0"""
    return p.addressed(kind=p.value(3.0))


@message(report=KIND)
def a_type_with_terminal_codes() -> bytes:
    """the type is text with line breaks and terminal codes"""
    return p.addressed(kind=p.value(LINES))


@message(report=KIND)
def a_type_that_is_unknown() -> bytes:
    """the type is a number that FedML does not know"""
    return p.addressed(kind=p.value(4711))


@message(report=f"{KIND}|integer|large|number")
def a_type_of_5000_digits() -> bytes:
    """the type is 10^5000"""
    return p.addressed(kind=p.value(10**5000))


@message(report=KIND)
def the_servers_own_start_signal() -> bytes:
    """the type is 0, with which the server's transport tells that it is ready"""
    return p.addressed(kind=p.value(0))


@message(report=KIND)
def a_model_from_the_server() -> bytes:
    """the type is the one of the server's models"""
    return p.addressed(kind=p.value(2))


@message(report=KIND)
def an_order_to_finish() -> bytes:
    """the type is the server's order to finish"""
    return p.addressed(kind=p.value(7))


@message(report=KIND)
def a_type_that_is_missing() -> bytes:
    """the type is missing"""
    return p.message(msg_type=None)


heading("a wrong sender")


@message(report=SENDER)
def a_sender_in_text() -> bytes:
    """the sender is text"""
    return p.addressed(sender=p.value("mine"))


@message(report=f"{SENDER}|integer|large|number")
def a_sender_of_5000_digits() -> bytes:
    """the sender is 10^5000"""
    return p.addressed(sender=p.value(10**5000))


@message(report=SENDER)
def a_sender_that_is_an_array() -> bytes:
    """the sender is an array"""
    return p.addressed(sender=p.value(np.arange(3)))


@message(report=SENDER)
def a_sender_that_is_a_tensor() -> bytes:
    """the sender is a tensor"""
    return p.addressed(sender=p.value(torch.arange(3)))


@message(report=SENDER)
def a_sender_that_is_nothing() -> bytes:
    """the sender is nothing (None)"""
    return p.addressed(sender=p.value(None))


@message("ignored", "left out", "taken", report=SENDER)
def a_sender_with_a_point() -> bytes:
    """the sender is the client's number with a point"""
    return p.addressed(sender=p.value(float(p.ME)))


@message(report=SENDER)
def a_sender_that_is_infinite() -> bytes:
    """the sender is infinity"""
    return p.addressed(sender=p.value(float("inf")))


@message(report=SENDER)
def a_negative_sender() -> bytes:
    """the sender is -1"""
    return p.addressed(sender=p.value(-1))


@message(report=SENDER)
def the_server_as_the_sender() -> bytes:
    """the sender is the server itself"""
    return p.addressed(sender=p.value(p.SERVER))


@message(report=f"{SENDER}|asked|before")
def another_client_as_the_sender() -> bytes:
    """the sender is another client, whose upload is there already"""
    return p.addressed(sender=p.value(p.OTHER))


@message("ignored", "left out", "taken", report=f"{SENDER}|asked|before")
def two_senders() -> bytes:
    """the message names one sender, its parameters another"""
    return p.message({"sender_id": p.value(p.ME)}, sender=p.value(p.OTHER))


@message(report=f"{SENDER}|asked|before")
def two_senders_the_other_way_around() -> bytes:
    """its parameters name the client, the message another"""
    return p.message({"sender_id": p.value(p.OTHER)}, sender=p.value(p.ME))


@message(report=SENDER)
def a_stranger() -> bytes:
    """the sender is no client of the federation"""
    return p.addressed(sender=p.value(p.STRANGER))


def from_a_stranger(rank: bytes, address: bytes, port: bytes) -> bytes:
    """A message of a sender that is in no table, with the address at which it wants to be called."""
    where = {"sender": p.value(10**6), "sender_rank": rank, "sender_ip": address, "sender_port": port}
    return p.message({"sender_id": p.value(10**6)}, **where)


@message(report=f"port|{SENDER}")
def a_stranger_whose_port_is_no_number() -> bytes:
    """an unknown sender whose port is no number"""
    return from_a_stranger(p.value(1), p.value("127.0.0.1"), p.value("mine"))


@message(report=f"port|{SENDER}")
def a_stranger_whose_port_is_out_of_range() -> bytes:
    """an unknown sender whose port is 10^6"""
    return from_a_stranger(p.value(1), p.value("127.0.0.1"), p.value(10**6))


@message(report=f"rank|address|{SENDER}")
def a_stranger_whose_address_is_a_list() -> bytes:
    """an unknown sender whose address is a list and whose rank is text"""
    return from_a_stranger(p.value("first"), p.value([[]]), p.value(80))


heading("a wrong receiver")


@message("ignored", "left out", "taken", report=RECEIVER)
def a_receiver_in_text() -> bytes:
    """the receiver is text"""
    return p.addressed(receiver=p.value("server"))


@message("ignored", "left out", "taken", report=RECEIVER)
def a_receiver_that_is_nothing() -> bytes:
    """the receiver is nothing (None)"""
    return p.addressed(receiver=p.value(None))


@message("ignored", "left out", "taken", report=RECEIVER)
def a_receiver_that_is_a_list() -> bytes:
    """the receiver is a list"""
    return p.addressed(receiver=p.value([0]))


@message("ignored", "left out", "taken", report=RECEIVER)
def another_client_as_the_receiver() -> bytes:
    """the receiver is another client"""
    return p.addressed(receiver=p.value(p.OTHER))


heading("a wrong status")

STATUS = "status|client_status|online|decod|forbidden|name|allowed"


@message(report=STATUS)
def a_status_that_is_an_array() -> bytes:
    """the status is an array"""
    return p.status(client_status=p.value(np.arange(3)))


@message(report=STATUS)
def a_status_that_is_a_tensor() -> bytes:
    """the status is a tensor"""
    return p.status(client_status=p.value(torch.arange(3)))


@message(report=STATUS)
def a_status_that_is_nothing() -> bytes:
    """the status is nothing (None)"""
    return p.status(client_status=p.value(None))


@message(report=STATUS)
def a_status_that_is_missing() -> bytes:
    """the status is missing"""
    return p.status(client_status=None)


@message(report=STATUS)
def a_status_that_is_unknown() -> bytes:
    """the status is one that FedML does not know"""
    return p.status(client_status=p.value("MINE"))


@message(report=STATUS)
def a_status_of_900_kb() -> bytes:
    """the status is 900 kB of text with line breaks and terminal codes"""
    return p.status(client_status=p.value(LINES * 15_000))


@message(report=f"{STATUS}|client|federation")
def a_stranger_that_is_online() -> bytes:
    """a stranger says that it is online"""
    return p.message(
        {"type": p.value("5"), "sender_id": p.value(p.STRANGER)},
        msg_type=p.value(p.ONLINE),
        sender=p.value(p.STRANGER),
        client_status=p.value("ONLINE"),
        model_params=None,
        num_samples=None,
    )


heading("wrong parameters")


@message(report=f"param|mapping|attribute|{CALL}")
def parameters_that_are_a_list() -> bytes:
    """a list in the place of the parameters"""
    return p.with_params(p.value([1, 2, 3]))


@message(report=f"param|mapping|attribute|type|{CALL}")
def parameters_that_are_missing() -> bytes:
    """no parameters at all"""
    return p.with_params(p.value({}))


@message("left out", "ignored", "taken", report=f"param|key|{CALL}")
def parameters_with_numbers_for_names() -> bytes:
    """a parameter whose name is a number"""
    pairs = {"msg_type": 3, "sender": p.ME, "receiver": 0, 5: "x", "num_samples": 20, "model_params": honest(MINE)}
    return p.with_params(p.value(pairs))


@message("left out", "ignored", "taken", report=f"param|objects|budget|{CALL}")
def a_hundred_thousand_parameters() -> bytes:
    """100,000 parameters"""
    return p.message(**{f"p{number}": b"N" for number in range(100_000)})


@message("left out", "ignored", "taken", report=f"param|{CALL}")
def parameters_with_terminal_codes() -> bytes:
    """extra parameters with line breaks and terminal codes"""
    return p.message(**{f"note{LINES}": p.value(LINES), "client_os": p.value(LINES)})


@message("left out", "ignored", "taken", report=f"param|text|long|{CALL}")
def a_parameter_of_900_kb() -> bytes:
    """a parameter of 900 kB of text"""
    return p.message(note=p.value(LINES * 15_000))


@message("left out", "ignored", report="mapping|model|missing")
def an_upload_without_a_model() -> bytes:
    """an upload without a model"""
    return p.message(model_params=None)


@message("left out", "ignored", report="samples|claim|missing")
def an_upload_without_a_claim() -> bytes:
    """an upload without a number of samples"""
    return p.message(num_samples=None)


@message("left out", "ignored", report="mapping|model|missing")
def a_model_somewhere_else() -> bytes:
    """an address in the place of a model"""
    where = {"model_params_url": p.value("http://127.0.0.1:9/model"), "model_params_key": p.value("model")}
    return p.message(model_params=None, **where)


@message("left out", "ignored", "taken", report=f"round|{CALL}")
def a_round_number_that_is_text() -> bytes:
    """a round number that is text"""
    return p.message(round_idx=p.value(LINES), round_number=p.value("mine"), round=p.value(-1))
