# Stand-in for debian:*: the base as it is.
ARG BASE
FROM ${BASE}
