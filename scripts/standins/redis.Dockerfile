# Stand-in for redis:8: Debian's Redis, started as the official image starts it.
ARG BASE
FROM ${BASE}
# The same number as in the official image, so that a volume can move from one to the other.
RUN groupadd -r -g 999 redis && useradd -r -g redis -u 999 -d /var/lib/redis -s /usr/sbin/nologin redis
RUN apt-get update \
 && apt-get install -y redis-server \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /data && chown redis:redis /data
COPY redis-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
