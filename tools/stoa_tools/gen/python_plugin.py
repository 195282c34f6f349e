"""The protoc plugin for everything Python: messages, gRPC stubs and their types.

buf has no built-in for gRPC's Python code, which lives inside grpcio-tools' own protoc. This plugin hands the
request of buf to that protoc as a descriptor set and answers with what it wrote.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]  # ships no types

# Stubs are what a service imports first, and gRPC reads its settings while it is imported.
_TUNING = "import stoa_contracts.grpc_tuning\n"
INSTALLED = "google/"  # the googleapis-common-protos package brings these modules, but no usable types


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Answer buf's request; for the files that a package already brings, with their types only."""
    requested = list(request.file_to_generate)
    ours = [name for name in requested if not name.startswith(INSTALLED)]
    with_services = {file.name for file in request.proto_file if file.service}
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder) / "request.binpb"
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(folder) / "out"
        out.mkdir()
        _protoc(descriptors, [f"--mypy_out=quiet:{out}"], requested)
        _protoc(descriptors, [f"--python_out={out}"], ours)
        _protoc(
            descriptors,
            [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet,only_async:{out}"],
            [name for name in ours if name in with_services],
        )
        response = CodeGeneratorResponse(
            supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
            | CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
            minimum_edition=998,
            maximum_edition=1000,
        )
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            content = path.read_text()
            if path.name.endswith("_pb2_grpc.py"):
                content = content.replace("import grpc\n", f"{_TUNING}import grpc\n", 1)
            response.file.add(name=path.relative_to(out).as_posix(), content=content)
    return response


def _protoc(descriptors: Path, outputs: list[str], names: list[str]) -> None:
    if not names:
        return
    scripts = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"--descriptor_set_in={descriptors}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        *outputs,
        *names,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc failed for {', '.join(names)}")


if __name__ == "__main__":
    answer = generate(CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(answer.SerializeToString())
