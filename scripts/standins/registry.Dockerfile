# Stand-in for registry:2.8.3: Debian's build of the same program, under the names of the official image.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y docker-registry wget \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/bin/docker-registry /usr/local/bin/registry \
 && mkdir -p /var/lib/registry
VOLUME /var/lib/registry
EXPOSE 5000
ENTRYPOINT ["registry"]
CMD ["serve", "/etc/docker/registry/config.yml"]
