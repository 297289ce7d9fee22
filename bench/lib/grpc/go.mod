module knoll.dev/bench/grpc

go 1.24
