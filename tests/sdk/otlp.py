"""Reads one export request of OTLP per line, as strictly as protobuf's own JSON mapping, and says what it holds.

OTLP departs from that mapping in one thing: ids are hexadecimal where bytes would be base64.
"""

import base64
import json
import re
import sys

from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}


def with_bytes(value):
    if isinstance(value, list):
        return [with_bytes(element) for element in value]
    if not isinstance(value, dict):
        return value
    return {key: id_of(key, member) if key in IDS else with_bytes(member) for key, member in value.items()}


def id_of(key, text):
    if not re.fullmatch("[0-9a-f]{%d}" % IDS[key], text):
        raise ValueError(f"{key} is {text!r}")
    return base64.b64encode(bytes.fromhex(text)).decode()


def read(line):
    request = ParseDict(with_bytes(json.loads(line)), ExportTraceServiceRequest())
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span
                keys = [attribute.key for attribute in span.attributes]
                assert len(keys) == len(set(keys)), keys
    # Read back from the binary form as well, which is what a collector keeps.
    again = ExportTraceServiceRequest.FromString(request.SerializeToString())
    return [span for resource in again.resource_spans for scope in resource.scope_spans for span in scope.spans]


def value_of(attribute):
    kind = attribute.value.WhichOneof("value")
    assert kind is not None, attribute
    return getattr(attribute.value, kind)


spans = []
for line in sys.stdin:
    for span in read(line):
        MessageToDict(span)
        spans.append({
            "trace": span.trace_id.hex(),
            "span": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "state": span.trace_state,
            "name": span.name,
            "kind": span.kind,
            "error": span.status.code == 2,
            "attributes": {attribute.key: value_of(attribute) for attribute in span.attributes},
            "events": [{attribute.key: value_of(attribute) for attribute in event.attributes} for event in span.events],
        })
json.dump(spans, sys.stdout)
