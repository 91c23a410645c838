#!/bin/sh
# Generates the client into gen/. Argument: the Python that has grpcio-tools.
set -eu
cd "$(dirname "$0")"
mkdir -p gen
"${1:-python3}" -m grpc_tools.protoc -I ../../proto --python_out=gen --grpc_python_out=gen ../../proto/matrix/appservice/v1/*.proto
