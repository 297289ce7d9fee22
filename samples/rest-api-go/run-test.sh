#!/usr/bin/env bash
# Ask the service COUNT times through the gateway and count who answered.
# Usage: run-test.sh [COUNT] [SERVICE] [NAMESPACE]     needs kubectl and curl
set -euo pipefail
count=${1:-1} service=${2:-stock-service-example} namespace=${3:-default}

gateway=$(kubectl get svc istio-ingressgateway --namespace istio-system \
  -o jsonpath="{.status.loadBalancer.ingress[*]['ip']}")
url=$(kubectl get route "$service" --namespace "$namespace" -o jsonpath='{.status.url}')
host=${url#*://}
case $host in *:*) port=${host##*:} ;; *) port=80 ;; esac

for _ in $(seq "$count"); do
  curl --silent --show-error --fail --header "Host: ${host}" "http://${gateway}:${port}/"
done | sort | uniq -c
