# Stand-in for moby/buildkit:*-rootless: BuildKit through the Go module proxy, laid out as in the official image.
ARG BASE
FROM golang:1.24 AS binaries
ARG VERSION
WORKDIR /src
RUN go mod download "github.com/moby/buildkit@${VERSION}" \
 && cp -r "/go/pkg/mod/github.com/moby/buildkit@${VERSION}/." . \
 && chmod -R u+w . \
 && CGO_ENABLED=0 go build -trimpath -tags 'osusergo netgo seccomp' -o /out/ \
      -ldflags "-s -w -X github.com/moby/buildkit/version.Version=${VERSION}" ./cmd/buildkitd ./cmd/buildctl

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y runc rootlesskit uidmap fuse-overlayfs git openssh-client libcap2-bin \
 && rm -rf /var/lib/apt/lists/*
# As in the official image: capabilities of the files instead of setuid root, which a container without CAP_SYS_ADMIN
# cannot use for the map of a user namespace that belongs to somebody else.
RUN chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap \
 && setcap cap_setuid=ep /usr/bin/newuidmap && setcap cap_setgid=ep /usr/bin/newgidmap
RUN groupadd -g 1000 user && useradd -m -u 1000 -g 1000 -d /home/user -s /bin/sh user \
 && printf 'user:100000:65536\n' | tee /etc/subuid >/etc/subgid \
 && install -d -o user -g user -m 0700 /run/user/1000 /home/user/.local/tmp /home/user/.local/share/buildkit \
 && ln -s /usr/sbin/runc /usr/bin/buildkit-runc
COPY --from=binaries /out/ /usr/bin/
USER 1000:1000
ENV HOME=/home/user USER=user XDG_RUNTIME_DIR=/run/user/1000 TMPDIR=/home/user/.local/tmp \
    BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock
VOLUME /home/user/.local/share/buildkit
ENTRYPOINT ["rootlesskit", "buildkitd"]
