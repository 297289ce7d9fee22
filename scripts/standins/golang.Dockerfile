# Stand-in for golang:*: Debian's Go with the official image's paths. cgo works only with a compiler installed.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y golang-go \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p -m 1777 /go/src /go/bin
ENV GOPATH=/go GOTOOLCHAIN=local PATH=/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /go
