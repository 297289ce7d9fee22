# Stand-in for python:3.13-slim: Debian's Python under the names the official image has.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \
 && ln -s /usr/bin/python3 /usr/local/bin/python \
 && ln -s /usr/bin/python3 /usr/local/bin/python3
# Debian's pip looks for certificates in a place of its own when it runs for a virtual environment.
ENV LANG=C.UTF-8 PIP_CERT=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
