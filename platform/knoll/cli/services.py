"""`knoll status`, `knoll logs`: the state and the logs of Services."""

import threading

import click

from knoll.cli import output as printed
from knoll.cli import traffic_split
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.log_follower import APP, LogFollower
from knoll.cli.output import one_line, output_option
from knoll.cli.service_update import ready
from knoll.cli.terminal import echo
from knoll.values import kinds, labels
from knoll.values.json import Json


@click.command()
@output_option
@client_options
def status(output: str, client: ApiClient, namespace: str) -> None:
    """Show the Services of a namespace: readiness, URL and traffic split."""
    rows = [summary(service) for service in client.list(kinds.SERVICE, namespace)]
    if output != "text":
        return printed.show(rows, output)
    if not rows:
        echo(f"no Services in {namespace}; `knoll deploy PATH` creates one", err=True)
        return None
    table = printed.table("NAME", "READY", "URL", "TRAFFIC", "MESSAGE")
    for row in rows:
        table.add_row(row["name"], row["ready"], row["url"], percents(row["traffic"]), one_line(row["message"]))
    printed.print_table(table)
    return None


def summary(service: Json) -> Json:
    """Return the state of a Service that users need most."""
    status = service.get("status", {})
    condition = ready(service)
    return {
        "name": service["metadata"]["name"],
        "ready": condition.get("status", "Unknown"),
        "url": status.get("url", ""),
        "latestReadyRevision": status.get("latestReadyRevisionName", ""),
        "traffic": traffic_split.by_revision(status.get("traffic", [])),
        "message": "" if condition.get("status") == "True" else condition.get("message", ""),
    }


def percents(shares: dict[str, int]) -> str:
    """Format the shares of revisions on one line."""
    return ", ".join(f"{name} {percent} %" for name, percent in shares.items() if percent) or "none"


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Keep streaming, including the logs of later instances.")
@click.option("--tail", default=100, show_default=True, help="Number of past lines to show per instance.")
@client_options
def logs(name: str, follow: bool, tail: int, client: ApiClient, namespace: str) -> None:
    """Show the logs of a Service's instances."""
    client.get(kinds.SERVICE, namespace, name)
    if follow:
        LogFollower(client, namespace, name, lambda pod, line: echo(f"{pod} {line}")).run(tail)
        return
    pods = [pod["metadata"]["name"] for pod in client.list(kinds.POD, namespace, f"{labels.SERVICE}={name}")]
    if not pods:
        echo(
            f"{name} has no instances at the moment; a request starts one, and `knoll logs -f {name}` waits for it",
            err=True,
        )
        return

    def follow_pod(pod: str) -> None:
        for line in client.pod_log(namespace, pod, APP, follow=False, tail=tail):
            echo(f"{pod} {line}" if len(pods) > 1 else line)

    threads = [threading.Thread(target=follow_pod, args=[pod], daemon=True) for pod in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
