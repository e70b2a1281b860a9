"""Bytes as they are stored: deflated where that is shorter, and as text, which the database may keep as bytes."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any, Final

import ormsgpack

# What is often said: a deflater that knows it beforehand makes a tenth of a message's frame. What is stored depends on
# it: another one needs another letter in front of what it makes.
_WORDS: Final = (
    b"recursion_limit\xa7user_id\xacassistant_id\xa8graph_id\xa6run_id\xaccheckpoint_idcheckpoint_nslangfuse_session_id"
    b"__previous____end____no_writes____scheduled____error____resume____interrupt____pregel_tasks\xb5\xa7summary\xa7context"
    b"\xaflanggraph.types\xa9Interrupt\x82\xa5value\xa2id\xa7Command\xa4Send\x92\xaclanggraph.v1"
    b"counters_since_delta_snapshot\x81\xa8messages\x92_DeltaSnapshot"
    b"\xbflangchain_core.messages.system\xadSystemMessage\x86\xa7content\xda"
    b"\xbdlangchain_core.messages.tool\xabToolMessage\x89\xa7content\xb1additional_kwargs\x80\xb1response_metadata\x80"
    b"\xa4type\xa4tool\xa4name\xc0\xa2id\xd9$\xactool_call_id\xa9call_\xa8artifact\xc0\xa6status\xa7success"
    b"\xaatool_calls\x91\x84\xa4name\xa4args\x81\xa2id\xa9call_\xa4type\xa9tool_call\xb2invalid_tool_calls\x90"
    b"\xb1response_metadata\x84\xabtoken_usage\x83\xb1completion_tokens\xadprompt_tokens\xactotal_tokens"
    b"\xaamodel_name\xaemodel_provider\xa6openai\xa9anthropic\xadfinish_reason\xa4stop\xaatool_calls\xa8logprobs\xc0"
    b"\xaeusage_metadata\x85\xacinput_tokens\xadoutput_tokens\xactotal_tokens\xb3input_token_details\x80"
    b"\xb4output_token_details\x80\xb3model_validate_json"
    b"\x93\xc7\xff\x05\x94\xbdlangchain_core.messages.human\xacHumanMessage\x86\xa7content\xda\x00\xc4\xff\xb1additional_kwargs"
    b"\x80\xb1response_metadata\x80\xa4type\xa5human\xa4name\xc0\xa2id\xd9$\xb3model_validate_json"
    b"\x93\xc4\xff\x92\xc8\x05\x94\xbalangchain_core.messages.ai\xa9AIMessage\x89\xa7content\xda\x00\xc4\xff\xb1additional_kwargs"
    b"\x80\xb1response_metadata\x80\xa4type\xa2ai\xa4name\xc0\xa2id\xd9$lc_run--\xaatool_calls\x90\xb2invalid_tool_calls\x90"
    b"\xaeusage_metadata\xc0\xb3model_validate_json"
    b"\x93\xc4\x10\xb8~__pregel_pull, __start__\x93\x00\xa8messages\x94\xa7msgpack\xc4\x91\x82\xa4role\xa4user\xa9assistant"
    b"\xa6system\xa7content\xda\x00\x93\x01\xaebranch:to:agent\x91\xa4null"
    b"\x93\xc4\x10\xb3~__pregel_pull, agent\x93\x00\xa8messages\x94\xa7msgpack\xc4\xff\x91\xc8"
    b"\x94\xc4\x10\x92\xa7msgpack\xc4\xff\x85\xa1v\x04\xa2ts\xd9 2026-12-01T00:00:00.000000+00:00\xb0channel_versions\x83"
    b"\xa9__start__\x01\xa8messages\x01\xaebranch:to:agent\x01\xadversions_seen\x83\xa9__input__\x80\xa9__start__\x81"
    b"\xa9__start__\x01\xa5agent\x81\xaebranch:to:agent\x01\xb0updated_channels\x91\xa9__start__"
    b"\x92\xa7msgpack\xc4\x23\x83\xa6source\xa5input\xa4step\xcd\xa7parents\x80\x82\xa8messages\x92\xa7msgpack\x82\xa1n\xa1r\x94\x02"
    b"\xa9__start__\x93\xa7msgpack\xc4\x81\xa8messages\x91\x82\xa4role\xa4user\xa7content\xda\x00"
    b"\x94\xc4\x10\x92\xa7msgpack\xc4\xff\x85\xa1v\x04\xa2ts\xd9 2026-11-01T00:00:00.000000+00:00\xb0channel_versions\x83"
    b"\xa9__start__\x01\xa8messages\x01\xaebranch:to:model\x01\xadversions_seen\x83\xa9__input__\x80\xa9__start__\x81"
    b"\xa9__start__\x01\xa5model\x81\xaebranch:to:model\x01\xb0updated_channels\x92\xaebranch:to:model\xa8messages"
    b"\x92\xa7msgpack\xc4\x22\x83\xa6source\xa4loop\xa4step\xcd\xa7parents\x80\x82\xa8messages\x92\xa7msgpack\x82\xa1n\xcd\x01\xa1r"
    b"\x94\x02\xcd\x01\xff\xff\xaebranch:to:model\x91\xa4null"
)
_RAW: Final = -15
# What the first byte says: bytes as they are, deflated, or deflated msgpack.
_PLAIN: Final = b"t"
_DEFLATED: Final = b"d"
_PACKED: Final = b"m"


def text_of(data: bytes) -> str:
    """Bytes as a text."""
    deflated = _deflated(data)
    return _base64(_DEFLATED + deflated if len(deflated) < len(data) else _PLAIN + data)


def packed(value: Any) -> str:
    """A structure of lists, maps, texts, numbers and bytes as a text."""
    return _base64(_PACKED + _deflated(_msgpack(value)))


def content_of(text: str) -> Any:
    """What `text_of` or `packed` was given; the latter gives a list, not bytes."""
    data = base64.b64decode(text)
    if data[:1] == _PLAIN:
        return data[1:]
    inflated = _inflated(data[1:])
    return inflated if data[:1] == _DEFLATED else _unpacked(inflated)


def line_of(value: Any) -> str:
    """A structure as a text in a line, which has no blank."""
    return base64.b85encode(_deflated(_msgpack(value))).decode()


def content_of_line(text: str) -> Any:
    """The structure that `line_of` was given."""
    return _unpacked(_inflated(base64.b85decode(text)))


def size_of(parts: Sequence[Any]) -> int:
    """How many bytes they are, deflated."""
    return len(_deflated(_msgpack(list(parts))))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _msgpack(value: Any) -> bytes:
    return ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS)


def _unpacked(data: bytes) -> Any:
    return ormsgpack.unpackb(data, option=ormsgpack.OPT_NON_STR_KEYS)


def _deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, _RAW, zdict=_WORDS)
    return deflater.compress(data) + deflater.flush()


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj(_RAW, zdict=_WORDS)
    return inflater.decompress(data) + inflater.flush()
