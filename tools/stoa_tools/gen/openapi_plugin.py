"""The protoc plugin for openapi.yaml."""

import sys

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from stoa_tools.gen.errors import GenerationFailed
from stoa_tools.gen.openapi import render


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Answer buf's request with one document for all files."""
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    try:
        response.file.add(name="openapi.yaml", content=render(list(request.proto_file)))
    except GenerationFailed as failure:
        response.error = str(failure)
    return response


if __name__ == "__main__":
    answer = generate(CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(answer.SerializeToString())
