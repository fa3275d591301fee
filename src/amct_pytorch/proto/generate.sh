#!/bin/sh
# Makes *_pb2.py and *_pb2.pyi from the .proto files beside this script: sh generate.sh [python]
# The python needs grpcio-tools 1.62: its protoc (4.25) writes code that runs with every protobuf from 4.25 on.
set -eu
cd "$(dirname "$0")"
"${1:-python3}" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. ./*.proto
# protoc knows neither packages nor descriptor pools.
sed -i -e 's/^import basic_info_pb2 as /from amct_pytorch.proto import basic_info_pb2 as /' \
    -e 's/_descriptor_pool\.Default()/POOL/' \
    -e 's/^from google\.protobuf import descriptor_pool as _descriptor_pool$/from amct_pytorch.proto import POOL/' ./*_pb2.py
sed -i -e 's/^import basic_info_pb2 as /from amct_pytorch.proto import basic_info_pb2 as /' ./*_pb2.pyi
